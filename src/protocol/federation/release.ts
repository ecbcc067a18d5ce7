import { equalBytes, type RandomSource, wipe } from "../../crypto/bytes.ts";
import type { Signer } from "../../crypto/identity.ts";
import { Fault } from "../../errors.ts";
import { checkSignable } from "../transaction/index.ts";
import { shareFits } from "./blame.ts";
import type { Certificate } from "./certificate.ts";
import { groupOf, interpolate } from "./groups.ts";
import type { Culprit, SignedMessage } from "./message.ts";
import { pointOf } from "./owner.ts";
import type { ReleaseBody } from "./request.ts";
import { checkPublicKey } from "./signingkey.ts";
import { checkShare, checkUse, type OpenedPartial, sayPartial, type Use } from "./use.ts";

/** Checks a use that lets shares out. @throws Fault bad_input, stale, integrity */
function checkRelease(use: Use) {
  const checked = checkUse(use);
  const { body, order, certificate } = checked;
  if (body.kind !== "release") throw new Fault("bad_input", "this request asks for no shares");
  if ((body.purpose === "sign") !== (body.message !== null))
    throw new Fault("bad_input", "a message belongs to a release that signs, and to no other");
  if (body.purpose === "sign" && certificate.type !== "secp256k1" && certificate.type !== "p256")
    throw new Fault("bad_input", `keys of type ${certificate.type} are not released to sign`);
  checkReleasedForm(body, certificate);
  if ((body.purpose === "retrieve") !== (certificate.type === "bytes"))
    throw new Fault("bad_input", "bytes are retrieved, private keys are exported");
  if (order.ownerNonces !== null) throw new Fault("bad_input", "a release takes no nonces");
  checkPublicKey(certificate);
  return checked;
}

/** Of a release to sign: that what will be signed can be read; of another that it says nothing of the kind. */
export function checkReleasedForm(
  body: ReleaseBody,
  { type, publicKey }: Pick<Certificate, "type" | "publicKey">,
): void {
  const { message } = body;
  if (message !== null) checkSignable({ ...body, message, type, publicKey });
  else if (body.form !== "message" || body.input !== 0)
    throw new Fault("bad_input", "a release that signs nothing has no form and no input");
}

/**
 * Lets a server's share out, sealed to the requester (docs/protocol.md §8.6).
 *
 * @param input.share This server's share, 32 bytes; stays the caller's.
 * @throws Fault bad_input, stale, integrity, corrupt
 */
export async function releaseShare(
  input: Use & {
    readonly self: number;
    readonly signer: Signer;
    readonly share: Uint8Array;
    readonly random: RandomSource;
  },
): Promise<SignedMessage> {
  const use = checkRelease(input);
  const { self, signer, share, random } = input;
  if (!use.order.roster.includes(self)) throw new Fault("bad_input", "this server takes no part in the attempt");
  checkShare(use, self, share);
  return sayPartial(use, self, signer, share, random);
}

/** What the requester makes of released shares; wrong ones are named either way. */
export type ReleaseResult =
  /** The private scalar, 32 bytes in its suite's byte order (big-endian but for Ed25519, ristretto255 and `bytes`). */
  | { readonly result: "combined"; readonly scalar: Uint8Array; readonly culprits: readonly Culprit[] }
  /** Too few of the shares are right. */
  | { readonly result: "failed"; readonly culprits: readonly Culprit[] };

/**
 * Puts a private key together from `threshold` released shares and the owner's part.
 *
 * @param input.partials Of different servers; wrong ones are left out.
 * @param input.ownerScalar Of self-custodial keys: c, 32 bytes; stays the caller's.
 * @returns The scalar is the caller's to wipe.
 * @throws Fault bad_input, integrity when the whole does not fit the public key
 */
export function combineRelease(
  input: Use & { readonly partials: readonly OpenedPartial[]; readonly ownerScalar: Uint8Array | null },
): ReleaseResult {
  const { certificate: c } = checkRelease(input);
  const group = groupOf(c.type);
  if ((c.ownerPoint !== null) !== (input.ownerScalar !== null))
    throw new Fault("bad_input", "self-custodial keys, and no others, need the owner's part");
  if (new Set(input.partials.map((p) => p.index)).size !== input.partials.length)
    throw new Fault("bad_input", "a server's share is there twice");
  const good: { index: number; share: Uint8Array }[] = [];
  const culprits: Culprit[] = [];
  for (const { index, value, message } of input.partials) {
    if (value && shareFits(group, c.commitments, index, value)) good.push({ index, share: value });
    else culprits.push({ index, reason: "bad_share", evidence: [message] });
  }
  if (good.length < c.threshold) {
    if (culprits.length === 0) throw new Fault("bad_input", "too few shares make no key");
    return { result: "failed", culprits };
  }
  const servers = interpolate(group, good.slice(0, c.threshold));
  const whole = input.ownerScalar ? group.add(servers, group.parseScalar(input.ownerScalar)) : servers;
  const scalar = group.encodeScalar(whole);
  if (!equalBytes(pointOf(c.type, scalar), c.publicKey)) {
    wipe(scalar);
    throw new Fault("integrity", "these shares make another key");
  }
  return { result: "combined", scalar, culprits };
}
