import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { type AgeOpen, type AgeSeal, ageOpen, ageSeal } from "../formats/age.ts";
import { bytes, decodeJson, encodeJson, list, struct, text, u53, uint } from "../wire/codec.ts";

/** Largest archive of keys in bytes. */
export const ARCHIVE_MAX = 1_024 * 1_024;

type Files = ReadonlyMap<string, Uint8Array>;

/** Files of one kind, sealed for an operator (docs/operations.md §3). */
export interface FileArchive {
  /** Largest file in bytes. */
  readonly max: number;
  seal(files: Files, madeAtMs: number, to: AgeSeal): Promise<Uint8Array>;
  /** Opens what `seal` made. @throws Fault wrong_password, bad_input */
  open(sealed: Uint8Array, by: AgeOpen): Promise<{ files: Files; madeAtMs: number }>;
}

/** @param named What `keyhold server backup` writes it by. */
function archiveOf(kind: string, named: string, content: { readonly min: number; readonly max: number }): FileArchive {
  const file = struct({ name: text({ min: 1, max: 64, pattern: /^[a-z0-9.-]+$/ }), content: bytes(content) });
  const codec = struct({
    v: uint(1, 1),
    kind: text({ min: 1, max: 32 }),
    madeAtMs: u53,
    files: list(file, { min: 1, max: 64 }),
  });
  return {
    max: content.max,
    async seal(files, madeAtMs, to) {
      const list = [...files].map(([name, content]) => ({ name, content }));
      const plain = new TextEncoder().encode(encodeJson(codec, { v: 1, kind, madeAtMs, files: list }));
      try {
        return await ageSeal(plain, to);
      } finally {
        wipe(plain);
      }
    },
    async open(sealed, by) {
      const plain = await ageOpen(sealed, by);
      try {
        const read = decodeJson(codec, plain);
        if (read.kind !== kind) throw new Error("kind");
        return {
          files: new Map(read.files.map(({ name, content }) => [name, content])),
          madeAtMs: read.madeAtMs,
        };
      } catch {
        throw new Fault("bad_input", "this age file holds something else than was asked for", {
          hint: `name the file that \`keyhold server backup ${named}\` wrote`,
        });
      } finally {
        wipe(plain);
      }
    },
  };
}

/** A server's key files. */
export const keyArchive = archiveOf("keyhold-server-keys", "--keys", { min: 1, max: 65_536 });

/** Its enclave's files: a journal grows by some 0.5 KB a use of a federation's key, and is never shortened. */
export const enclaveArchive = archiveOf("keyhold-server-enclave", "--enclave", { min: 0, max: 64 * 1_024 * 1_024 });
