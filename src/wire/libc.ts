import { dlopen, FFIType, type Pointer, ptr, read } from "bun:ffi";
import { constants } from "node:fs";

/** The few calls of the C library that the runtime does not offer. */
export interface Libc {
  /** flock(2): 0, or -1. */
  flock(fd: number, operation: number): number;
  /** errno of the last failed call of this object; 0 when unknown. */
  errno(): number;
  /** Makes reads of a descriptor fail instead of waiting. Linux; elsewhere nothing. */
  nonblocking(fd: number): void;
  /** User id of the process at the other end of a connected Unix socket, or undefined. */
  peerUid(fd: number): number | undefined;
  /** Process id of that end, as it was when it connected; undefined where the system does not tell. */
  peerPid(fd: number): number | undefined;
  /**
   * Milliseconds that the system was asleep since it started, at least; it grows by the time slept. Undefined where
   * there are not two clocks to tell it from.
   */
  sleptMs(): number | undefined;
  /**
   * Closes this process's memory to other processes of its user and keeps it out of core dumps, until it becomes
   * another program. Linux; elsewhere nothing.
   */
  hide(): void;
  /** Core dumps off, and this process's memory closed to other processes of its user. Linux; elsewhere nothing. */
  seal(): void;
  /**
   * Maps zeroed memory that is never written to swap nor into a core dump, and never given back.
   *
   * @param length Bytes, a multiple of the page size. @returns Undefined where locking is not allowed (RLIMIT_MEMLOCK).
   */
  lockedPages(length: number): Pointer | undefined;
}

/** What the C library is called here; none where there is none that we know. */
export const LIBC_NAMES: readonly string[] =
  process.platform === "darwin"
    ? ["libSystem.B.dylib"]
    : process.platform === "linux"
      ? ["libc.so.6", "libc.musl-x86_64.so.1", "libc.musl-aarch64.so.1", "libc.so"]
      : [];

const LINUX = { solSocket: 1, soPeercred: 17, rlimitCore: 4, fSetfl: 4, prSetDumpable: 4, madvDontdump: 16 } as const;
const DARWIN = { solLocal: 0, localPeerpid: 2 } as const;
/** Clocks that go on while the system sleeps, and that do not: BOOTTIME and MONOTONIC, MONOTONIC_RAW and UPTIME_RAW. */
const CLOCKS = { linux: { always: 7, awake: 1 }, darwin: { always: 4, awake: 8 } } as const;
/** PROT_READ | PROT_WRITE, and MAP_PRIVATE | MAP_ANONYMOUS. */
const MAP = { protection: 3, linux: 0x22, darwin: 0x1002 } as const;

let loaded: Libc | null | undefined;

/** The C library, loaded on first use; null where it cannot be (Windows). */
export function libc(): Libc | null {
  loaded ??= load();
  return loaded;
}

function load(): Libc | null {
  for (const name of LIBC_NAMES) {
    try {
      return process.platform === "darwin" ? loadDarwin(name) : loadLinux(name);
    } catch {
      // not this name
    }
  }
  return null;
}

const FLOCK = { args: [FFIType.i32, FFIType.i32], returns: FFIType.i32 } as const;
const ERRNO = { args: [], returns: FFIType.ptr } as const;
const MEMORY = {
  mmap: { args: [FFIType.ptr, FFIType.u64, FFIType.i32, FFIType.i32, FFIType.i32, FFIType.i64], returns: FFIType.ptr },
  mlock: { args: [FFIType.ptr, FFIType.u64], returns: FFIType.i32 },
  munmap: { args: [FFIType.ptr, FFIType.u64], returns: FFIType.i32 },
} as const;

const CLOCK = { args: [FFIType.i32, FFIType.ptr], returns: FFIType.i32 } as const;

function sleptMs(
  clockGettime: (clock: number, time: Pointer) => number,
  clocks: { readonly always: number; readonly awake: number },
): number | undefined {
  const read = (clock: number): number => {
    // struct timespec { seconds, nanoseconds }
    const time = new BigInt64Array(2);
    return clockGettime(clock, ptr(time)) === 0 ? Number(time[0]) * 1_000 + Number(time[1]) / 1e6 : Number.NaN;
  };
  // what passes between the two readings makes the difference smaller, never larger: the largest is the best
  const slept = Math.max(...[1, 2, 3].map(() => read(clocks.always) - read(clocks.awake)));
  return Number.isNaN(slept) ? undefined : Math.max(0, slept);
}

interface MemoryCalls {
  mmap(
    at: null,
    length: number,
    protection: number,
    flags: number,
    fd: number,
    offset: number,
  ): Pointer | bigint | null;
  mlock(at: Pointer, length: number): number;
  munmap(at: Pointer, length: number): number;
}

function lockedPages({ mmap, mlock, munmap }: MemoryCalls, flags: number, length: number): Pointer | undefined {
  const at = mmap(null, length, MAP.protection, flags, -1, 0);
  // MAP_FAILED is the highest address: too large for a number
  if (typeof at !== "number" || at > Number.MAX_SAFE_INTEGER) return undefined;
  if (mlock(at, length) === 0) return at;
  munmap(at, length);
  return undefined;
}

function loadLinux(name: string): Libc {
  const { symbols } = dlopen(name, {
    flock: FLOCK,
    __errno_location: ERRNO,
    getsockopt: {
      args: [FFIType.i32, FFIType.i32, FFIType.i32, FFIType.ptr, FFIType.ptr],
      returns: FFIType.i32,
    },
    // variadic; on Linux a number goes the same way
    fcntl: { args: [FFIType.i32, FFIType.i32, FFIType.i32], returns: FFIType.i32 },
    setrlimit: { args: [FFIType.i32, FFIType.ptr], returns: FFIType.i32 },
    clock_gettime: CLOCK,
    prctl: { args: [FFIType.i32, FFIType.u64, FFIType.u64, FFIType.u64, FFIType.u64], returns: FFIType.i32 },
    madvise: { args: [FFIType.ptr, FFIType.u64, FFIType.i32], returns: FFIType.i32 },
    ...MEMORY,
  });
  /** struct ucred { pid, uid, gid } */
  const peer = (fd: number): Int32Array | undefined => {
    const credentials = new Int32Array(3);
    const length = new Uint32Array([credentials.byteLength]);
    const { solSocket, soPeercred } = LINUX;
    const result = symbols.getsockopt(fd, solSocket, soPeercred, ptr(credentials), ptr(length));
    return result === 0 && length[0] === credentials.byteLength ? credentials : undefined;
  };
  return {
    flock: (fd, operation) => symbols.flock(fd, operation),
    errno: () => {
      const at = symbols.__errno_location();
      return at === null ? 0 : read.i32(at, 0);
    },
    peerUid: (fd) => {
      const uid = peer(fd)?.[1];
      return uid === undefined ? undefined : uid >>> 0;
    },
    nonblocking: (fd) => {
      symbols.fcntl(fd, LINUX.fSetfl, constants.O_NONBLOCK);
    },
    // 0 for a process of another namespace
    peerPid: (fd) => peer(fd)?.[0] || undefined,
    sleptMs: () => sleptMs((clock, time) => symbols.clock_gettime(clock, time), CLOCKS.linux),
    hide: () => {
      symbols.prctl(LINUX.prSetDumpable, 0, 0, 0, 0);
    },
    seal() {
      // struct rlimit { soft, hard }
      symbols.setrlimit(LINUX.rlimitCore, ptr(new BigUint64Array(2)));
      symbols.prctl(LINUX.prSetDumpable, 0, 0, 0, 0);
    },
    lockedPages(length) {
      const at = lockedPages(symbols, MAP.linux, length);
      if (at !== undefined) symbols.madvise(at, length, LINUX.madvDontdump);
      return at;
    },
  };
}

function loadDarwin(name: string): Libc {
  const { symbols } = dlopen(name, {
    flock: FLOCK,
    __error: ERRNO,
    getpeereid: { args: [FFIType.i32, FFIType.ptr, FFIType.ptr], returns: FFIType.i32 },
    getsockopt: {
      args: [FFIType.i32, FFIType.i32, FFIType.i32, FFIType.ptr, FFIType.ptr],
      returns: FFIType.i32,
    },
    clock_gettime: CLOCK,
    ...MEMORY,
  });
  return {
    flock: (fd, operation) => symbols.flock(fd, operation),
    errno: () => {
      const at = symbols.__error();
      return at === null ? 0 : read.i32(at, 0);
    },
    peerUid: (fd) => {
      const uid = new Uint32Array(1);
      const gid = new Uint32Array(1);
      return symbols.getpeereid(fd, ptr(uid), ptr(gid)) === 0 ? uid[0] : undefined;
    },
    peerPid: (fd) => {
      const pid = new Int32Array(1);
      const length = new Uint32Array([pid.byteLength]);
      const { solLocal, localPeerpid } = DARWIN;
      return symbols.getsockopt(fd, solLocal, localPeerpid, ptr(pid), ptr(length)) === 0
        ? pid[0] || undefined
        : undefined;
    },
    sleptMs: () => sleptMs((clock, time) => symbols.clock_gettime(clock, time), CLOCKS.darwin),
    nonblocking: () => undefined,
    hide: () => undefined,
    seal: () => undefined,
    lockedPages: (length) => lockedPages(symbols, MAP.darwin, length),
  };
}
