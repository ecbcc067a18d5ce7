import { dlopen, FFIType, ptr } from "bun:ffi";
import { LIBC_NAMES } from "./libc.ts";

/** Larger than `struct termios` anywhere (60 bytes with glibc, 72 on macOS); what is in it is the system's affair. */
const TERMIOS_ROOM = 256;
const TCSADRAIN = 1;

const CALLS = {
  tcgetattr: { args: [FFIType.i32, FFIType.ptr], returns: FFIType.i32 },
  tcsetattr: { args: [FFIType.i32, FFIType.i32, FFIType.ptr], returns: FFIType.i32 },
  cfmakeraw: { args: [FFIType.ptr], returns: FFIType.void },
  pipe: { args: [FFIType.ptr], returns: FFIType.i32 },
} as const;

function load() {
  for (const name of LIBC_NAMES) {
    try {
      return dlopen(name, CALLS).symbols;
    } catch {
      // not this name
    }
  }
  return null;
}

let loaded: ReturnType<typeof load> | undefined;

/**
 * Takes every processing of keys and output from a terminal (cfmakeraw(3)). The runtime's own raw mode still changes
 * line ends on output.
 *
 * @returns What gives it the modes it had; undefined where it is no terminal or the system has no such call.
 */
export function makeRaw(fd: number): (() => void) | undefined {
  loaded ??= load();
  const calls = loaded;
  const before = new Uint8Array(TERMIOS_ROOM);
  if (calls === null || calls.tcgetattr(fd, ptr(before)) !== 0) return undefined;
  const raw = before.slice();
  calls.cfmakeraw(ptr(raw));
  if (calls.tcsetattr(fd, TCSADRAIN, ptr(raw)) !== 0) return undefined;
  return () => void calls.tcsetattr(fd, TCSADRAIN, ptr(before));
}

/** A pipe(2): what the runtime gives a child is a socket, which it cannot open again as /dev/stdout. */
export function openPipe(): { readonly read: number; readonly write: number } | undefined {
  loaded ??= load();
  const ends = new Int32Array(2);
  if (loaded === null || loaded.pipe(ptr(ends)) !== 0) return undefined;
  return { read: ends[0] ?? -1, write: ends[1] ?? -1 };
}
