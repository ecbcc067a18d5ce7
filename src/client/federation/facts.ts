import type { FederatedRequest, RequestBody } from "../../protocol/federation/request.ts";

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

/** What a request asks for, from its signed body alone. */
export function factsOf({ body }: FederatedRequest): readonly Fact[] {
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
          ? fact("shared out to", `${body.threshold} of servers ${body.holders.join(", ")}`)
          : []),
      ];
    case "sign":
    case "release":
      return [
        ...fact("key", body.keyId),
        ...fact("generation", body.generation),
        ...(body.kind === "release" ? fact("purpose", PURPOSE[body.purpose]) : []),
        ...(body.amount === null ? [] : fact("declared amount", `${body.amount.value} ${body.amount.unit}`)),
        ...(body.message === null ? [] : messageFacts(body.message)),
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
