import { wipe } from "../crypto/bytes.ts";
import { HEDGE_BYTES, type Hedge } from "../crypto/hedge.ts";
import { Fault } from "../errors.ts";
import type { Open } from "./opened.ts";
import { getSecret } from "./reading.ts";

/**
 * A hedge for one signature: a secret of type `bytes` of the vault, with fresh random bytes beside it.
 *
 * @param signs Whether the key signs by ECDSA in this client; for others no hedge is read.
 * @returns The caller's to wipe. @throws Fault bad_input, not_found, ambiguous
 */
export async function hedgeOf(open: Open, name: string, signs: boolean): Promise<Hedge> {
  if (!signs) {
    throw new Fault("bad_input", "a hedge goes with ECDSA keys that sign on this device", {
      why: "Ed25519, RSA and keys that servers sign with together take none",
      hint: "leave --hedge out",
    });
  }
  const got = await getSecret(open, { name, version: null, reveal: true, fresh: false, save: false });
  const { value, info } = got;
  if (value && info.type === "bytes" && value.length >= HEDGE_BYTES) {
    return { secret: value, fresh: open.around.random(HEDGE_BYTES) };
  }
  wipe(value ?? undefined);
  throw new Fault(
    "bad_input",
    `"${name}" is no hedge: that is a secret of type "bytes" of ${HEDGE_BYTES} bytes or more`,
    {
      hint: "keyhold generate NAME --type bytes --length 32, or a ceremony whose output is a hedge",
    },
  );
}
