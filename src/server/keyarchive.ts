import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { type AgeOpen, type AgeSeal, ageOpen, ageSeal } from "../formats/age.ts";
import { bytes, decodeJson, encodeJson, list, struct, text, u53, uint } from "../wire/codec.ts";

/** Largest archive in bytes. */
export const ARCHIVE_MAX = 1_024 * 1_024;

const archive = struct({
  v: uint(1, 1),
  kind: text({ min: 1, max: 32 }),
  madeAtMs: u53,
  files: list(
    struct({ name: text({ min: 1, max: 64, pattern: /^[a-z0-9.-]+$/ }), content: bytes({ min: 1, max: 65_536 }) }),
    {
      min: 1,
      max: 64,
    },
  ),
});

const KIND = "keyhold-server-keys";

/** Seals a server's key files for its operator (docs/operations.md). */
export async function sealKeyFiles(
  files: ReadonlyMap<string, Uint8Array>,
  madeAtMs: number,
  to: AgeSeal,
): Promise<Uint8Array> {
  const list = [...files].map(([name, content]) => ({ name, content }));
  const plain = new TextEncoder().encode(encodeJson(archive, { v: 1, kind: KIND, madeAtMs, files: list }));
  try {
    return await ageSeal(plain, to);
  } finally {
    wipe(plain);
  }
}

/** Opens what {@link sealKeyFiles} made. @throws Fault wrong_password, bad_input */
export async function openKeyFiles(
  sealed: Uint8Array,
  by: AgeOpen,
): Promise<{ files: ReadonlyMap<string, Uint8Array>; madeAtMs: number }> {
  const plain = await ageOpen(sealed, by);
  try {
    const { kind, files, madeAtMs } = decodeJson(archive, plain);
    if (kind !== KIND) throw new Error("kind");
    return { files: new Map(files.map(({ name, content }) => [name, content])), madeAtMs };
  } catch {
    throw new Fault("bad_input", "this age file holds no keys of a keyhold server", {
      hint: "name the file that `keyhold server backup --keys` wrote",
    });
  } finally {
    wipe(plain);
  }
}
