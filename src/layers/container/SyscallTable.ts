/**
 * The system calls a container may make without conditions, grouped by what
 * they are for.
 *
 * The starting point is what the default profiles of the field (containers-common,
 * moby) allow to a container without capabilities; taken out is what widens the
 * kernel's surface and what programs in a sandbox have no business with:
 * namespaces, mounts, tracing and reading other processes, key rings, bpf, perf,
 * io_uring, aio, userfaultfd, modules, fanotify, file handles, quotas, the kernel log,
 * clocks, 16-bit segments. Calls with conditions are in `Seccomp.ts`.
 */

const files = `
  access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64
  fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fremovexattr
  fsetxattr fstat fstatfs fsync ftruncate futimesat getcwd getdents getdents64 getxattr ioctl lchown lgetxattr link
  linkat listxattr llistxattr lremovexattr lseek lsetxattr lstat mkdir mkdirat mknod mknodat newfstatat open openat
  openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv removexattr rename
  renameat renameat2 rmdir sendfile setxattr splice stat statfs statx symlink symlinkat sync sync_file_range syncfs tee
  truncate umask unlink unlinkat utime utimensat utimes vmsplice write writev
`

const waiting = `
  epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 inotify_add_watch
  inotify_init inotify_init1 inotify_rm_watch pipe pipe2 poll ppoll pselect6 select signalfd signalfd4 timerfd_create timerfd_gettime timerfd_settime
`

const processes = `
  capget capset execve execveat exit exit_group fork getegid geteuid getgid getgroups getpgid getpgrp getpid getppid
  getpriority getresgid getresuid getrlimit getrusage getsid gettid getuid ioprio_get ioprio_set kill pause pidfd_open
  pidfd_send_signal prctl process_mrelease sched_get_priority_max sched_get_priority_min sched_getaffinity
  sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity
  sched_yield seccomp setfsgid setfsuid setgid setgroups setpgid setregid
  setresgid setresuid setreuid setrlimit setsid setuid tgkill tkill vfork wait4 waitid landlock_add_rule
  landlock_create_ruleset landlock_restrict_self
`

const signals = `
  restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
  rt_tgsigqueueinfo sigaltstack
`

const memory = `
  brk get_mempolicy madvise membarrier memfd_create mincore mlock mlock2 mlockall mmap mprotect mremap msync munlock
  munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages cachestat map_shadow_stack
`

const threads = `
  arch_prctl futex futex_requeue futex_wait futex_waitv futex_wake get_robust_list get_thread_area getcpu rseq
  set_robust_list set_thread_area set_tid_address
`

const interprocess = `
  mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop
  semtimedop shmat shmctl shmdt shmget
`

const sockets = `
  accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg sendmsg
  sendto setsockopt shutdown
`

const time = `
  alarm clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep setitimer time timer_create
  timer_delete timer_getoverrun timer_gettime timer_settime times
`

const system = `getrandom sysinfo uname`

/** Names of the calls that are allowed with any arguments; sorted, without repeats. */
export const allowedSyscalls: ReadonlyArray<string> = [
  files,
  waiting,
  processes,
  signals,
  memory,
  threads,
  interprocess,
  sockets,
  time,
  system
]
  .flatMap((group) => group.trim().split(/\s+/))
  .sort()
