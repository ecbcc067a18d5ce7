import { join } from "node:path";
import { makePrivateDirectory, readPrivateFile, replacePrivateFile } from "./privatefile.ts";

const NOTE_MAX_BYTES = 32;

const notePath = (directory: string, profile: string): string => join(directory, `backup-${profile}`);

/** Notes that a copy of everything was made, for the advice that `doctor` gives. @throws Fault storage */
export function noteBackup(directory: string, profile: string, nowMs: number): void {
  makePrivateDirectory(directory);
  replacePrivateFile(notePath(directory, profile), new TextEncoder().encode(`${Math.floor(nowMs)}\n`));
}

/** When the last copy was made on this device, in milliseconds since 1970, or null. */
export function readBackupNote(directory: string, profile: string): number | null {
  const note = readPrivateFile(notePath(directory, profile), { maxBytes: NOTE_MAX_BYTES, loose: "tighten" });
  const [, digits = ""] = /^(\d{1,15})\n$/.exec(note === null ? "" : new TextDecoder().decode(note)) ?? [];
  return digits === "" ? null : Number(digits);
}
