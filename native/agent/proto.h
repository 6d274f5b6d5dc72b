/* The wire protocol between host and agent; src/layers/agent/Protocol.ts is the other half.
 *
 *   frame   u32 payload length | u8 type | u32 channel | payload          all integers little endian
 *   str     u32 length | bytes
 *
 * A connection begins with MAGIC and a HELLO frame in each direction; bytes before MAGIC are discarded. Requests open a channel
 * whose number the host chose (below 2^31); the agent chooses numbers from 2^31 on for the connections it accepts. A channel ends
 * with its first OK, ERROR, END, ENDED, EXIT or other one-frame reply; what arrives for a channel that has ended is ignored. The bytes in
 * OUTPUT and DATA frames from the agent use up credit that the host grants per channel, an EVENT uses up one; the agent grants
 * WINDOW bytes of DATA per duplex channel and renews them with CREDIT. */
#ifndef PROTO_H
#define PROTO_H

#define MAGIC "\xf1" "fbox" "\x8d\x9a\xb7" /* no zero bytes, so that zero padding resynchronises a stream stopped mid-frame */

enum {
	MAGIC_LEN = 8,
	PROTOCOL_VERSION = 4,
	HEADER = 9,
	MAX_PAYLOAD = 256 * 1024,
	SPAWN_MAX = 1280 * 1024, /* of a SPAWN alone: a command line and environment of 1 MiB */
	WINDOW = 256 * 1024,
	MAX_ID = 64,
	MAX_LABEL = 256,
};

#define FIRST_OWN 0x80000000u /* channels from here on are opened by the agent */

enum type {
	/* both ways */
	T_NOP = 0,
	T_HELLO = 1,  /* host: u16 version, u64 epoch or 0, u64 nonce, u32 lease ms | agent: u16 version, u64 epoch, u64 nonce */
	T_CREDIT = 2, /* u32 more bytes */
	T_CLOSE = 3,  /* the sender is done with the channel in both directions */
	T_DATA = 4,
	T_EOF = 5, /* no more DATA in this direction */

	/* host to agent */
	T_PING = 16,
	T_SPAWN = 17,       /* u32 credit, u32 identity, u32 limit ms or 0, str label, spec (see sup.c): which process an id names is decided by the spec alone */
	T_ATTACH = 18,      /* str process, u64 cursor, u32 credit, u8 holds */
	T_SIGNAL = 19,      /* str process, u8 signal, u8 scope */
	T_KILL = 20,        /* str process, u32 wait ms */
	T_STDIN = 21,       /* str process, u64 offset, bytes */
	T_STDIN_CLOSE = 22, /* str process */
	T_RESIZE = 23,      /* str process, u16 rows, u16 cols */
	T_PROCESSES = 24,
	T_CANCEL = 25, /* str process, u32 identity, u8 cause, u32 wait ms: an id that is not there yet is not to come any more */
	T_LIMIT = 26,  /* str process, u32 ms left */
	T_STAT = 32,    /* user, str path */
	T_READ = 33,    /* user, u64 offset, u64 length, u32 credit, str path */
	T_WRITE = 34,   /* user, u32 mode or -1, str path, bytes: a whole small file */
	T_UPLOAD = 35,  /* user, u32 mode or -1, str upload, str path, u64 offset, bytes */
	T_COMMIT = 36,  /* str upload, u64 size */
	T_ABORT = 37,   /* str upload */
	T_LIST = 38,    /* user, u16 depth, u32 limit, str path */
	T_MKDIR = 39,   /* user, u32 mode, u8 parents, str path */
	T_RENAME = 40,  /* user, u8 replace, str from, str to */
	T_REMOVE = 41,  /* user, u8 recursive, str path */
	T_CHMOD = 42,   /* user, u32 mode, str path */
	T_TIMES = 43,   /* user, i64 modified ms, u32 further ns, str path */
	T_LINK = 44,    /* user, str from, str to */
	T_WATCH = 48,   /* user, u8 recursive, u32 credit, str path */
	T_DIAL = 49,    /* u32 credit, u8 ip version (4, 6), u16 port: of the machine's loopback address */
	T_LISTEN = 50,  /* u32 credit of each accepted channel, u16 port */
	REQUESTS,

	/* agent to host */
	T_OK = 64,
	T_ERROR = 65,     /* u16 code, i32 errno, u64 detail, str message */
	T_END = 66,       /* u8 truncated */
	T_SPAWNED = 67,   /* u32 pid, u64 started ms, u8 existed, u32 supervisor's pid or 0 */
	T_OUTPUT = 68,    /* u64 cursor, u8 stream (1, 2), u64 time ms, bytes */
	T_TRUNCATED = 69, /* u64 from, u64 to: these bytes are gone */
	T_EXIT = 70,      /* u8 signalled, u8 code or signal, u64 end cursor, u64 exited ms, u8 ended by its limit, u8 tree alive */
	T_KILLED = 71,    /* u8 tree gone, u8 what was met: enum met */
	T_OFFSET = 72,    /* u64 accepted so far */
	T_PROCESS = 73,   /* see attach.c */
	T_STATED = 74,    /* see files.c */
	T_ENTRY = 75,     /* str path below the directory, the rest as T_STATED */
	T_EVENT = 76,     /* u8 kind, u8 is directory, str path, str path before (renamed) */
	T_ENDED = 77,     /* u8 how: a watch, because its path leads to its directory no more */
	T_ACCEPTED = 78,  /* u32 channel */
	T_LISTENING = 79, /* u16 port */
	T_CONNECTED = 80,
};

enum code {
	E_ERRNO = 0, /* as the error number says */
	E_INVALID = 1, E_NOT_FOUND, E_PERMISSION, E_NOT_DIR, E_IS_DIR, E_EXISTS, E_LOOP, E_NOT_EMPTY, E_NO_SPACE, E_NAME_TOO_LONG,
	E_NOT_REGULAR, E_BUSY, E_IO, E_RESOURCES, E_CONFLICT, E_BAD_CWD, E_NOT_EXECUTABLE, E_GAP, E_CLOSED, E_REFUSED,
	E_UNSUPPORTED, E_CROSS_DEVICE, E_READ_ONLY, E_STALE, E_VERSION, E_NO_PROCESS, E_TOO_LONG, E_NO_UPLOAD,
	E_NO_TERMINAL, /* all that there may be are in use */
};

enum { SPAWN_TTY = 1, SPAWN_STDIN = 2 };
enum cause { BY_ITSELF, BY_REQUEST, BY_LIMIT };            /* why a program ended */
enum met { MET_NOTHING, MET_DESCENDANTS, MET_PROGRAM }; /* what there was to kill */
enum { SCOPE_PROCESS = 0, SCOPE_GROUP = 1, SCOPE_TREE = 2 };
enum { EVENT_CREATED = 1, EVENT_MODIFIED, EVENT_REMOVED, EVENT_RENAMED, EVENT_OVERFLOW };
enum { ENDED_REMOVED = 1, ENDED_MOVED, ENDED_REPLACED, ENDED_UNMOUNTED };

#endif
