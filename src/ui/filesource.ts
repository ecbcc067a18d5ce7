import { closeSync, constants, fstatSync, openSync, read } from "node:fs";
import { promisify } from "node:util";
import { Fault } from "../errors.ts";
import { errnoOf } from "./process.ts";

/** Bytes that are read piece by piece. */
export interface FileSource {
  /** Bytes of the whole; null where only the end will tell. */
  readonly size: number | null;
  /** The next bytes, `limit` of them or all that are left; none at the end. The caller wipes them. */
  read(limit: number): Promise<Uint8Array>;
  close(): void;
}

/**
 * Opens a file, or stdin for null.
 *
 * @throws Fault not_found, denied, bad_input
 */
export function openFileSource(path: string | null): FileSource {
  const fd = path === null ? 0 : openRegular(path);
  const { size } = path === null ? { size: null } : fstatSync(fd);
  return {
    size,
    async read(limit) {
      const buffer = new Uint8Array(limit);
      let length = 0;
      while (length < limit) {
        const count = await readSome(fd, buffer, length, path ?? "stdin");
        if (count === 0) break;
        length += count;
      }
      return length === limit ? buffer : takeFront(buffer, length);
    },
    close() {
      if (path !== null) closeSync(fd);
    },
  };
}

function takeFront(buffer: Uint8Array, length: number): Uint8Array {
  const front = buffer.slice(0, length);
  buffer.fill(0);
  return front;
}

function openRegular(path: string): number {
  let fd: number;
  try {
    // a FIFO must not hang
    fd = openSync(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  } catch (error) {
    const code = errnoOf(error);
    if (code === "ENOENT" || code === "ENOTDIR") throw new Fault("not_found", `there is no file "${path}"`);
    throw new Fault("denied", `cannot read "${path}"`, { why: code ?? "unknown" });
  }
  if (fstatSync(fd).isFile()) return fd;
  closeSync(fd);
  throw new Fault("bad_input", `"${path}" is not a regular file`, { hint: "pipes are given on stdin" });
}

const readBytes = promisify(read);

/** One read. It blocks nobody: signals are heard while a pipe has nothing yet. */
async function readSome(fd: number, buffer: Uint8Array, offset: number, label: string): Promise<number> {
  for (;;) {
    try {
      const { bytesRead } = await readBytes(fd, buffer, offset, Math.min(buffer.length - offset, 65_536), null);
      return bytesRead;
    } catch (error) {
      const code = errnoOf(error);
      if (code === "EOF") return 0;
      if (code !== "EAGAIN" && code !== "EINTR") {
        throw new Fault("bad_input", `cannot read "${label}"`, { why: code ?? "unknown" });
      }
      await Bun.sleep(5);
    }
  }
}
