import { wipe } from "../crypto/bytes.ts";
import type { KeyId, RequestId } from "../ids.ts";
import { openChecked } from "./changes.ts";
import { fetchSealed } from "./fetching.ts";
import type { ServerSecret } from "./model.ts";
import { type Open, online, save } from "./opened.ts";
import { withheld } from "./reading.ts";
import { synchronise } from "./sync.ts";

/** Copies that one call keeps at most, in bytes: the vault is written as a whole. */
const COPIES_BYTES = 64 * 1_024 * 1_024;
const BATCH = 128;

const isMissing = (secret: { readonly place: string; readonly leaf: ServerSecret["leaf"] }): secret is ServerSecret => {
  const { place, leaf, sealed, meta } = secret as ServerSecret;
  // of a file in parts the vault keeps what the owner chose to keep
  return (
    place === "server" && leaf.status === "live" && sealed === null && meta?.type !== "part" && meta?.type !== "file"
  );
};

/**
 * Brings the vault's copy of every value up to date, so that all of it can be read while the server is away; parts of
 * files aside. Each copy is checked against the signed leaf before it is kept.
 *
 * @returns Copies that were taken, and what is left without one for want of room.
 * @throws Fault unreachable, integrity
 */
export function keepCopies(open: Open): Promise<{ kept: number; left: number; requestId: RequestId | null }> {
  return online(open, true, (at) =>
    withheld(open, at, async () => {
      if (!at) return { kept: 0, left: 0, requestId: null };
      await synchronise(open.box.model, at.session, open.around);
      const missing = [...open.box.model.secrets.values()].filter(isMissing);
      const taken = new Map<KeyId, { readonly version: number; readonly sealed: Uint8Array }>();
      let requestId: RequestId | null = null;
      let bytes = 0;
      for (let i = 0; i < missing.length && bytes < COPIES_BYTES; i += BATCH) {
        const some = missing.slice(i, i + BATCH);
        const keys = some.map(({ leaf }) => ({ keyId: leaf.keyId, version: leaf.version }));
        const answer = await fetchSealed(at.session, "secret.get", keys);
        requestId ??= answer.requestId;
        for (const [j, secret] of some.entries()) {
          const sealed = answer.sealed[j];
          if (!sealed || secret.meta === null) continue;
          wipe(openChecked(open.box.model, secret.leaf, secret.meta, sealed).value);
          taken.set(secret.leaf.keyId, { version: secret.leaf.version, sealed });
          bytes += sealed.length;
        }
      }
      await save(open, (model) => {
        for (const [keyId, { version, sealed }] of taken) {
          const now = model.secrets.get(keyId);
          if (now?.place === "server" && now.leaf.version === version) model.secrets.set(keyId, { ...now, sealed });
        }
      });
      return { kept: taken.size, left: missing.length - taken.size, requestId };
    }),
  );
}
