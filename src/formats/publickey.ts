import { createPublicKey } from "node:crypto";
import { fromBase64url, toBase64url } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { SecretType } from "../protocol/secrettype.ts";
import { EC_CURVES, isEcType } from "./curves.ts";
import { readSshBlob, type SshPublicParts, sshBlob, sshPublicLine } from "./sshkey.ts";

/** Forms of a public key as text. */
export const PUBLIC_FORMS = ["hex", "pem", "jwk", "ssh", "age"] as const;
export type PublicForm = (typeof PUBLIC_FORMS)[number];

/** The numbers of a public key. */
type PublicParts =
  | SshPublicParts
  /** `point`: 32 bytes, or uncompressed (SEC 1 §2.3.3). */
  | { readonly type: "x25519" | "secp256k1"; readonly point: Uint8Array };

const isOther = (parts: PublicParts): parts is Exclude<PublicParts, SshPublicParts> =>
  parts.type === "x25519" || parts.type === "secp256k1";

/** Takes a public key apart, as it stands in a secret's facts. @throws Fault bad_input for a type that is no key pair */
function partsOf(type: SecretType, publicKey: Uint8Array): PublicParts {
  if (type === "ssh") return readSshBlob(publicKey);
  if (type === "ed25519" || type === "x25519") return { type, point: publicKey };
  if (isEcType(type)) return { type, point: EC_CURVES[type].curve.Point.fromBytes(publicKey).toBytes(false) };
  if (type === "rsa") {
    const key = createPublicKey({ key: Buffer.from(publicKey), format: "der", type: "spki" });
    const { n, e } = key.export({ format: "jwk" });
    return { type, n: fromBase64url(n ?? ""), e: fromBase64url(e ?? "") };
  }
  throw new Fault("bad_input", `a secret of type "${type}" has no public key`);
}

/** A public key as ssh sends it; null for a type that ssh has no name for. @throws Fault bad_input */
export function sshBlobOf(type: SecretType, publicKey: Uint8Array): Uint8Array | null {
  if (type === "ssh") return publicKey;
  const parts = partsOf(type, publicKey);
  return isOther(parts) ? null : sshBlob(parts);
}

/** The recipient to which age encrypts for this key; null where the key cannot decrypt. @throws Fault bad_input */
export async function ageRecipientFor(type: SecretType, publicKey: Uint8Array): Promise<string | null> {
  if (type === "x25519") return (await import("./agex25519.ts")).ageRecipientOf(publicKey);
  const parts = partsOf(type, publicKey);
  if (isOther(parts)) return null;
  return parts.type === "rsa" || parts.type === "ed25519" ? sshPublicLine(sshBlob(parts), "") : null;
}

/**
 * A public key in a form of text, without the newline at its end.
 *
 * @param publicKey As in a secret's facts (docs/agent.md §4).
 * @param comment For `ssh`.
 * @throws Fault bad_input where the form does not hold this type
 */
export async function publicKeyText(
  type: SecretType,
  publicKey: Uint8Array,
  form: PublicForm,
  comment: string,
): Promise<string> {
  switch (form) {
    case "hex":
      return publicKey.toHex();
    case "pem":
      return pemText(await spki(partsOf(type, publicKey)));
    case "jwk": {
      const members = jwkMembers(partsOf(type, publicKey));
      const { thumbprint } = await import("./jwk.ts");
      return JSON.stringify({ ...members, kid: thumbprint(members) });
    }
    case "ssh": {
      const blob = sshBlobOf(type, publicKey);
      if (blob === null) throw noForm(type, "ssh", "ed25519, p256, p384, rsa and ssh keys have one");
      return sshPublicLine(blob, comment);
    }
    case "age": {
      const recipient = await ageRecipientFor(type, publicKey);
      if (recipient === null) throw noForm(type, "age", "x25519, ed25519 and rsa keys decrypt");
      return recipient;
    }
    default:
      return form satisfies never;
  }
}

function noForm(type: SecretType, form: PublicForm, hint: string): Fault {
  return new Fault("bad_input", `a key of type "${type}" has no form for ${form}`, { hint });
}

function jwkMembers(parts: PublicParts): Readonly<Record<string, string>> {
  if (parts.type === "rsa") return { kty: "RSA", n: toBase64url(parts.n), e: toBase64url(parts.e) };
  if (parts.type === "ed25519" || parts.type === "x25519") {
    return { kty: "OKP", crv: parts.type === "ed25519" ? "Ed25519" : "X25519", x: toBase64url(parts.point) };
  }
  const { crv, bytes } = EC_CURVES[parts.type];
  const [x, y] = [parts.point.subarray(1, 1 + bytes), parts.point.subarray(1 + bytes)];
  return { kty: "EC", crv, x: toBase64url(x), y: toBase64url(y) };
}

/** SubjectPublicKeyInfo (RFC 5280 §4.1, RFC 5480 §2, RFC 8410 §4). */
async function spki(parts: PublicParts): Promise<Uint8Array> {
  if (parts.type === "rsa") {
    const key = createPublicKey({ key: jwkMembers(parts), format: "jwk" });
    return new Uint8Array(key.export({ format: "der", type: "spki" }));
  }
  const [{ AlgorithmIdentifier, SubjectPublicKeyInfo }, { AsnConvert }, { ECParameters, id_ecPublicKey }] =
    await Promise.all([import("@peculiar/asn1-x509"), import("@peculiar/asn1-schema"), import("@peculiar/asn1-ecc")]);
  const algorithm = isEcType(parts.type)
    ? new AlgorithmIdentifier({
        algorithm: id_ecPublicKey,
        parameters: AsnConvert.serialize(new ECParameters({ namedCurve: EC_CURVES[parts.type].oid })),
      })
    : new AlgorithmIdentifier({ algorithm: parts.type === "ed25519" ? "1.3.101.112" : "1.3.101.110" });
  const subjectPublicKey = parts.point.slice().buffer;
  return new Uint8Array(AsnConvert.serialize(new SubjectPublicKeyInfo({ algorithm, subjectPublicKey })));
}

function pemText(der: Uint8Array): string {
  const lines = der.toBase64().match(/.{1,64}/g) ?? [];
  return `-----BEGIN PUBLIC KEY-----\n${lines.join("\n")}\n-----END PUBLIC KEY-----`;
}
