import { dlopen, FFIType, type Pointer, ptr, read } from "bun:ffi";

/** The few calls of the C library that the runtime does not offer. */
export interface Libc {
  /** flock(2): 0, or -1. */
  flock(fd: number, operation: number): number;
  /** errno of the last failed call of this object; 0 when unknown. */
  errno(): number;
  /** User id of the process at the other end of a connected Unix socket, or undefined. */
  peerUid(fd: number): number | undefined;
  /** Core dumps off, and this process's memory closed to other processes of its user. Linux; elsewhere nothing. */
  seal(): void;
  /**
   * Maps zeroed memory that is never written to swap nor into a core dump, and never given back.
   *
   * @param length Bytes, a multiple of the page size. @returns Undefined where locking is not allowed (RLIMIT_MEMLOCK).
   */
  lockedPages(length: number): Pointer | undefined;
}

const NAMES =
  process.platform === "darwin"
    ? ["libSystem.B.dylib"]
    : process.platform === "linux"
      ? ["libc.so.6", "libc.musl-x86_64.so.1", "libc.musl-aarch64.so.1", "libc.so"]
      : [];

const LINUX = { solSocket: 1, soPeercred: 17, rlimitCore: 4, prSetDumpable: 4, madvDontdump: 16 } as const;
/** PROT_READ | PROT_WRITE, and MAP_PRIVATE | MAP_ANONYMOUS. */
const MAP = { protection: 3, linux: 0x22, darwin: 0x1002 } as const;

let loaded: Libc | null | undefined;

/** The C library, loaded on first use; null where it cannot be (Windows). */
export function libc(): Libc | null {
  loaded ??= load();
  return loaded;
}

function load(): Libc | null {
  for (const name of NAMES) {
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
    setrlimit: { args: [FFIType.i32, FFIType.ptr], returns: FFIType.i32 },
    prctl: { args: [FFIType.i32, FFIType.u64, FFIType.u64, FFIType.u64, FFIType.u64], returns: FFIType.i32 },
    madvise: { args: [FFIType.ptr, FFIType.u64, FFIType.i32], returns: FFIType.i32 },
    ...MEMORY,
  });
  return {
    flock: (fd, operation) => symbols.flock(fd, operation),
    errno: () => {
      const at = symbols.__errno_location();
      return at === null ? 0 : read.i32(at, 0);
    },
    peerUid: (fd) => {
      // struct ucred { pid, uid, gid }
      const credentials = new Int32Array(3);
      const length = new Uint32Array([credentials.byteLength]);
      const { solSocket, soPeercred } = LINUX;
      const result = symbols.getsockopt(fd, solSocket, soPeercred, ptr(credentials), ptr(length));
      return result === 0 && length[0] === credentials.byteLength ? (credentials[1] ?? 0) >>> 0 : undefined;
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
    seal: () => undefined,
    lockedPages: (length) => lockedPages(symbols, MAP.darwin, length),
  };
}
