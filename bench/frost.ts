import { ed25519_FROST } from "@noble/curves/ed25519.js";

/** What the library alone costs, in one process and on one core: nothing is signed, sealed, sent or stored. */

const frost = ed25519_FROST;

interface Made {
  readonly keys: readonly ReturnType<typeof frost.DKG.round3>[];
}

/** A key by `count` parties, all rounds of each. */
export function libraryGenerate(count: number, threshold: number): Made {
  const signers = { min: threshold, max: count };
  const parties = Array.from({ length: count }, (_, at) => {
    const id = frost.Identifier.fromNumber(at + 1);
    return { id, ...frost.DKG.round1(id, signers) };
  });
  const others = (id: string) => parties.filter((one) => one.id !== id).map((one) => one.public);
  const second = parties.map(({ id, secret }) => ({ id, to: frost.DKG.round2(secret, others(id)) }));
  const keys = parties.map(({ id, secret }) => {
    const shares = second.filter((one) => one.id !== id).map((one) => one.to[id]);
    return frost.DKG.round3(
      secret,
      others(id),
      shares.flatMap((share) => (share ? [share] : [])),
    );
  });
  return { keys };
}

/** A signature by the first `threshold` of them. */
export function librarySign({ keys }: Made, threshold: number, message: Uint8Array): Uint8Array {
  const signing = keys.slice(0, threshold).map((key) => ({ key, ...frost.commit(key.secret) }));
  const list = signing.map((one) => one.commitments);
  const [first] = signing;
  if (!first) throw new RangeError("nobody signs");
  const shares = signing.map(({ key, nonces }) => [
    key.secret.identifier,
    frost.signShare(key.secret, key.public, nonces, list, message),
  ]);
  return frost.aggregate(first.key.public, list, message, Object.fromEntries(shares));
}
