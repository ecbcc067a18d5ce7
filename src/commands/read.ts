import { closeSync, constants, fsyncSync, ftruncateSync, openSync, rmSync, writeSync } from "node:fs";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { defineCommand } from "../ui/command.ts";
import { result } from "../ui/output.ts";
import { errnoOf } from "../ui/process.ts";
import { withClient } from "../ui/session.ts";
import { parseReference } from "./secretargs.ts";

function openNewFile(path: string): number {
  try {
    return openSync(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o600);
  } catch (error) {
    const code = errnoOf(error);
    if (code === "EEXIST") throw new Fault("exists", `${JSON.stringify(path)} exists`, { hint: "choose another file" });
    if (code === "ENOENT" || code === "ENOTDIR") {
      throw new Fault("not_found", `there is no directory for ${JSON.stringify(path)}`, {
        hint: "choose another file",
      });
    }
    throw new Fault("storage", `cannot write ${JSON.stringify(path)}`, { why: code ?? "unknown" });
  }
}

/** A new file whose content is known later. */
export interface ReservedFile {
  write(bytes: Uint8Array): void;
  /** Closes it; one that was never written is removed. */
  end(): void;
}

/**
 * Makes a new file, 0600, and fills `room` bytes of it, so that a full disk shows before the content is made.
 *
 * @throws Fault exists, not_found (no directory), storage
 */
export function reserveNewFile(path: string, room: number): ReservedFile {
  const fd = openNewFile(path);
  let written = false;
  const file: ReservedFile = {
    write(bytes) {
      try {
        for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at, bytes.length - at, at);
        ftruncateSync(fd, bytes.length);
        fsyncSync(fd);
      } catch (error) {
        throw new Fault("storage", `cannot write ${JSON.stringify(path)}`, { why: errnoOf(error) ?? "unknown" });
      }
      written = true;
    },
    end() {
      closeSync(fd);
      if (!written) rmSync(path, { force: true });
    },
  };
  try {
    file.write(new Uint8Array(room));
    written = false;
    return file;
  } catch (error) {
    file.end();
    throw error;
  }
}

/** Writes a new file, 0600; an existing one is refused. @throws Fault exists, not_found (no directory), storage */
export function writeNewFile(path: string, bytes: Uint8Array): void {
  const file = reserveNewFile(path, 0);
  try {
    file.write(bytes);
  } finally {
    file.end();
  }
}

export default defineCommand({
  args: {
    ref: { type: "positional", description: "reference (kh://NAME) or name", ask: "Name of the secret" },
    out: { type: "string", hint: "FILE", description: "write to a new file, 0600 (- is stdout)" },
    fresh: { type: "boolean", description: "insist on the server's answer" },
  },
  details: "Prints the bare value, byte for byte.",
  examples: [
    ["keyhold read kh://db/prod", "the raw value on stdout"],
    ["keyhold read kh://tls/key --out key.bin", "into a new file"],
  ],
  run: async (args, ctx) => {
    const ref = args.ref.startsWith("kh://")
      ? parseReference(args.ref)
      : { name: args.ref, version: null, profile: null, field: null };
    const chosen = ref.profile === null ? ctx : { ...ctx, flags: { ...ctx.flags, profile: ref.profile } };
    return withClient(chosen, async (client) => {
      const got = await client.get({
        name: ref.name,
        version: ref.version,
        reveal: true,
        fresh: args.fresh,
        save: false,
      });
      const value = fieldOf(ref.field, got.value ?? new Uint8Array(0), got.info.publicKey);
      try {
        if (args.out === null || args.out === "-") {
          ctx.out.bytes(value);
          return;
        }
        writeNewFile(args.out, value);
        return result({ name: got.info.name, version: got.version, out: args.out }, () => "", {
          requestId: got.requestId,
        });
      } finally {
        wipe(value);
      }
    });
  },
});

/** The part of a secret that a reference's `#field` names. @throws Fault not_found */
export function fieldOf(field: string | null, value: Uint8Array, publicKey: Uint8Array | null): Uint8Array {
  if (field === null || field === "value") return value;
  if (field === "public-key" && publicKey) return new TextEncoder().encode(publicKey.toHex());
  throw new Fault("not_found", `this secret has no field ${JSON.stringify(field)}`, {
    hint: "value, or public-key for key pairs",
  });
}
