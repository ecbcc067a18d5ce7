import { dlopen, FFIType } from "bun:ffi";
import { closeSync, openSync, readFileSync, readSync } from "node:fs";

const CHUNK = 1 << 20;

/** Writable mappings of which anything is in memory. */
function residentMappings(pid: number): readonly (readonly [from: number, to: number])[] {
  const smaps = readFileSync(`/proc/${pid}/smaps`, "utf8");
  const found: [number, number][] = [];
  for (const [, from = "", to = "", mode = "", rss] of smaps.matchAll(
    /^([0-9a-f]+)-([0-9a-f]+) (\S+) .*\n(?:[A-Z]\w+:.*\n)*?Rss: +(\d+) kB/gm,
  )) {
    if (mode.startsWith("rw") && rss !== "0") found.push([Number(`0x${from}`), Number(`0x${to}`)]);
  }
  return found;
}

const PAGE = 4_096;
/** Bits of a page's entry (proc_pid_pagemap(5)): in memory, or swapped out. */
const PRESENT = 0b1100_0000;

/** Stretches of a mapping that hold anything: an engine maps gigabytes that it never touches. */
function residentStretches(pagemap: number, from: number, to: number): readonly (readonly [number, number])[] {
  const entries = Buffer.alloc(((to - from) / PAGE) * 8);
  const got = readSync(pagemap, entries, 0, entries.length, (from / PAGE) * 8);
  const found: [number, number][] = [];
  for (let at = 0; at < got / 8; at++) {
    if (((entries[at * 8 + 7] ?? 0) & PRESENT) === 0) continue;
    const start = from + at * PAGE;
    const last = found.at(-1);
    if (last?.[1] === start) last[1] += PAGE;
    else found.push([start, start + PAGE]);
  }
  return found;
}

/** Tells which of `wanted` the writable memory of a process holds, in one pass. @throws Error when it may not be read */
export function memoryHolds(pid: number, wanted: readonly Uint8Array[]): readonly boolean[] {
  const found = wanted.map(() => false);
  const overlap = Math.max(...wanted.map(({ length }) => length));
  const fd = openSync(`/proc/${pid}/mem`, "r");
  const pagemap = openSync(`/proc/${pid}/pagemap`, "r");
  const buffer = Buffer.alloc(CHUNK + overlap);
  try {
    for (const [from, to] of residentMappings(pid).flatMap((one) => residentStretches(pagemap, ...one))) {
      for (let at = from; at < to; at += CHUNK) {
        let got = 0;
        try {
          got = readSync(fd, buffer, 0, Math.min(buffer.length, to - at), at);
        } catch {
          // not mapped any more, or not to be touched
        }
        for (const [i, one] of wanted.entries()) found[i] ||= buffer.subarray(0, got).includes(one);
      }
    }
    return found;
  } finally {
    closeSync(fd);
    closeSync(pagemap);
  }
}

const SEEK = { data: 3, hole: 4 } as const;

/** Tells which of `wanted` a file with holes holds, such as a core dump: holes are not read (lseek(2), Linux). */
export function sparseFileHolds(path: string, wanted: readonly Uint8Array[]): readonly boolean[] {
  const found = wanted.map(() => false);
  const { symbols } = dlopen("libc.so.6", {
    lseek: { args: [FFIType.i32, FFIType.i64, FFIType.i32], returns: FFIType.i64 },
  });
  const fd = openSync(path, "r");
  try {
    for (let from = Number(symbols.lseek(fd, 0, SEEK.data)); from >= 0; ) {
      const to = Number(symbols.lseek(fd, from, SEEK.hole));
      const stretch = Buffer.alloc(to - from);
      readSync(fd, stretch, 0, stretch.length, from);
      for (const [i, one] of wanted.entries()) found[i] ||= stretch.includes(one);
      from = Number(symbols.lseek(fd, to, SEEK.data));
    }
    return found;
  } finally {
    closeSync(fd);
  }
}

/** The variables with which a process was started. */
export function environmentOf(pid: number): readonly string[] {
  return readFileSync(`/proc/${pid}/environ`, "utf8")
    .split("\0")
    .filter((line) => line !== "");
}
