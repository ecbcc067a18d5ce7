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

/** Tells which of `wanted` the writable memory of a process holds, in one pass. @throws Error when it may not be read */
export function memoryHolds(pid: number, wanted: readonly Uint8Array[]): readonly boolean[] {
  const found = wanted.map(() => false);
  const overlap = Math.max(...wanted.map(({ length }) => length));
  const fd = openSync(`/proc/${pid}/mem`, "r");
  const buffer = Buffer.alloc(CHUNK + overlap);
  try {
    for (const [from, to] of residentMappings(pid)) {
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
  }
}

/** The variables with which a process was started. */
export function environmentOf(pid: number): readonly string[] {
  return readFileSync(`/proc/${pid}/environ`, "utf8")
    .split("\0")
    .filter((line) => line !== "");
}
