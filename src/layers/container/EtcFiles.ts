/**
 * What a container sees in `/etc`: files made here, and a list of the host's
 * files that programs in `/usr` need. Nothing that is not listed is ever shown.
 */

/** A file with its contents. */
export interface EtcFile {
  readonly name: string
  readonly content: string
}

const lines = (...text: ReadonlyArray<string>): string => `${text.join("\n")}\n`

/** Made here, so that they are the same in every container and tell nothing of the host. */
export const madeFiles: ReadonlyArray<EtcFile> = [
  {
    name: "passwd",
    content: lines(
      "root:x:0:0:root:/root:/bin/sh",
      "daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin",
      "bin:x:2:2:bin:/bin:/usr/sbin/nologin",
      "sys:x:3:3:sys:/dev:/usr/sbin/nologin",
      "man:x:6:12:man:/var/cache/man:/usr/sbin/nologin",
      "mail:x:8:8:mail:/var/mail:/usr/sbin/nologin",
      "www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin",
      "user:x:1000:1000:user:/home/user:/bin/sh",
      "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin"
    )
  },
  {
    name: "group",
    content: lines(
      "root:x:0:",
      "daemon:x:1:",
      "bin:x:2:",
      "sys:x:3:",
      "adm:x:4:",
      "tty:x:5:",
      "disk:x:6:",
      "mail:x:8:",
      "man:x:12:",
      "kmem:x:15:",
      "www-data:x:33:",
      "shadow:x:42:",
      "utmp:x:43:",
      "staff:x:50:",
      "users:x:100:",
      "user:x:1000:",
      "nogroup:x:65534:"
    )
  },
  {
    name: "nsswitch.conf",
    content: lines(
      "passwd: files",
      "group: files",
      "hosts: files dns",
      "networks: files",
      "protocols: files",
      "services: files",
      "ethers: files",
      "rpc: files"
    )
  },
  { name: "host.conf", content: lines("multi on") },
  { name: "resolv.conf", content: "" },
  { name: "shells", content: lines("/bin/sh", "/bin/bash", "/usr/bin/sh", "/usr/bin/bash") },
  {
    name: "profile",
    content: lines(
      "# The service sets PATH; this is for shells that were started without one.",
      '[ -n "$PATH" ] || PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games',
      "export PATH"
    )
  },
  { name: "environment", content: "" },
  { name: "fstab", content: "" }
]

/**
 * The host's files and directories that are copied, where they exist and
 * everybody may read them: the dynamic linker's, certificate authorities,
 * alternatives, time and language, and the system-wide settings of interpreters
 * and tools without which they do not start or find their parts. Left out on
 * purpose is what operators put secrets into: npmrc, pip.conf, gitconfig, wgetrc,
 * profile.d, and everything of servers.
 */
export const copiedNames: ReadonlyArray<RegExp> = [
  /^ld\.so\.(cache|conf)$/,
  /^ld\.so\.conf\.d$/,
  /^alternatives$/,
  /^ca-certificates\.conf$/,
  /^(localtime|timezone|locale\.alias|os-release|debian_version|lsb-release)$/,
  /^(mime\.types|magic|magic\.mime|services|protocols|rpc|networks|terminfo|inputrc)$/,
  /^bash\.bashrc$/,
  /^fonts$/,
  /^(python[0-9.]*|perl|ruby|tcl|java(-\d+-openjdk)?|ImageMagick-\d+|texmf|groff)$/
]

/** Of `/etc/ssl` only these: its `private` is what the name says. */
export const copiedSslNames: ReadonlyArray<string> = ["certs", "openssl.cnf"]
