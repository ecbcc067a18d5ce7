import { Fault } from "../../errors.ts";
import type { Certificate } from "../../protocol/federation/certificate.ts";
import type { FederatedRequest, ReleaseBody, RequestBody, SignBody } from "../../protocol/federation/request.ts";
import { transactionFacts } from "../../protocol/transaction/index.ts";

/** Characters of a message that are shown as text. */
const SHOWN_MAX = 2_000;

export interface Fact {
  readonly label: string;
  readonly value: string;
}

/** A message as people read it: text where all of it is printable, otherwise its bytes. */
export function messageFacts(message: Uint8Array): readonly Fact[] {
  const size: Fact = { label: "message length", value: `${message.length} bytes` };
  const text = printable(message);
  return text === null
    ? [size, { label: "message (hex)", value: clip(message.subarray(0, SHOWN_MAX).toHex()) }]
    : [size, { label: "message", value: clip(text) }];
}

const clip = (text: string): string => (text.length > SHOWN_MAX ? `${text.slice(0, SHOWN_MAX)}… (cut)` : text);

/** UTF-8 without control, format, private or unassigned characters, so that nothing in it deceives the eye. */
function printable(message: Uint8Array): string | null {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(message);
    return /^[^\p{C}\p{Zl}\p{Zp}]*$/u.test(text.replaceAll("\n", "")) ? text : null;
  } catch {
    return null;
  }
}

const fact = (label: string, value: string | number | null): readonly Fact[] =>
  value === null ? [] : [{ label, value: String(value) }];

/** The key of a use, where this device knows it. */
type KnownKey = Pick<Certificate, "type" | "publicKey"> | null;

/**
 * What is to be signed, as people read it: of a transaction what its bytes say, of a digest that it says nothing.
 *
 * @param key Null where it is not known: a Bitcoin transaction's signed input then stands for it, and servers sign only
 * if that is true.
 */
export function signedFacts(body: SignBody | ReleaseBody, key: KnownKey): readonly Fact[] {
  const { message, form, amount } = body;
  const declared = amount === null ? [] : fact("declared amount", `${amount.value} ${amount.unit}`);
  if (message === null) return declared;
  if (form === "digest") {
    const digest = [...fact("digest", message.toHex()), ...fact("caution", "a digest does not say what is signed")];
    return [...declared, ...digest];
  }
  if (form === "message") return [...declared, ...messageFacts(message)];
  try {
    return transactionFacts({ ...body, message }, key)?.lines ?? [];
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    return [...declared, ...fact("caution", error.message), ...messageFacts(message)];
  }
}

/**
 * What a request asks for, from its signed body alone.
 *
 * @param key That the request is about, where this device knows it.
 */
export function factsOf({ body }: FederatedRequest, key: KnownKey = null): readonly Fact[] {
  switch (body.kind) {
    case "generate":
    case "import":
      return [
        ...fact("type", body.type),
        ...fact("length", body.type === "bytes" ? `${body.length} bytes` : null),
        ...fact("custody", body.custody),
        ...fact("control", body.control),
        ...fact("policy", body.policy),
        ...(body.kind === "import"
          ? [
              ...fact("origin", body.origin),
              ...fact("shared out to", `${body.threshold} of servers ${body.holders.join(", ")}`),
            ]
          : []),
      ];
    case "sign":
    case "release":
      return [
        ...fact("key", body.keyId),
        ...fact("generation", body.generation),
        ...(body.kind === "release" ? fact("purpose", PURPOSE[body.purpose]) : []),
        ...signedFacts(body, key),
      ];
    case "reshare":
      return [
        ...fact("key", body.keyId),
        ...fact("generation", body.generation),
        ...fact("mode", body.mode),
        ...fact("shared anew", `${body.threshold} of servers ${body.holders.join(", ")}`),
      ];
  }
}

const PURPOSE = {
  retrieve: "let the owner read the value",
  export: "let the private key out for good",
  sign: "let the shares out to the owner to sign this message",
} as const;

/** The key that a request is about, if it is about one. */
export const keyIdOfBody = (body: RequestBody): string | null =>
  body.kind === "generate" || body.kind === "import" ? null : body.keyId;
