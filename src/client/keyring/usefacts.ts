import { Fault } from "../../errors.ts";
import type { FederatedRequest, ReleaseBody, RequestBody, SignBody } from "../../protocol/federation/request.ts";
import { checkSignable, type Signable, transactionFacts } from "../../protocol/transaction/index.ts";
import { messageFacts } from "../federation/facts.ts";
import type { UseFacts } from "../keyringapi.ts";
import type { KnownKey } from "./keys.ts";

type Line = UseFacts["lines"][number];

/** A use of a key that asks for a signature. */
export type UseBody = (SignBody | ReleaseBody) & { readonly message: Uint8Array };

/** The body of an item that uses a key; null for one that makes a key. */
export function useBodyOf({ body }: { readonly body: RequestBody }): UseBody | null {
  if (body.kind !== "sign" && body.kind !== "release") return null;
  const { message } = body;
  return message === null ? null : { ...body, message };
}

const aboutKey = ({ certificate: { type, publicKey } }: Pick<KnownKey, "certificate">) => ({ type, publicKey });

/** What is really signed, computed here. @throws Fault bad_input for what cannot be signed by this key */
export function signableBy(key: Pick<KnownKey, "certificate">, body: UseBody): Signable {
  const { form, input, message, amount } = body;
  return checkSignable({ ...aboutKey(key), form, input, message, amount });
}

/** What a transaction or message says; a transaction that cannot be read says so. */
export function factsOfUse(key: Pick<KnownKey, "certificate">, body: UseBody): UseFacts {
  const head: readonly Line[] = [
    { label: "key", value: body.keyId },
    { label: "form", value: body.form === "bitcoin" ? `bitcoin, input ${body.input}` : body.form },
    ...(body.kind === "release"
      ? [{ label: "shares", value: "are let out to the client of who asks, which signs: the key is released for good" }]
      : []),
  ];
  const declared = body.amount;
  try {
    const { form, input, message } = body;
    const said = transactionFacts({ form, input, message }, aboutKey(key));
    if (said) return { lines: [...head, ...said.lines], amount: said.amount, recipients: said.recipients };
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    return {
      lines: [...head, { label: "cannot be read", value: error.message }, ...messageFacts(body.message)],
      amount: null,
      recipients: [],
    };
  }
  const amount: readonly Line[] = declared
    ? [{ label: "declared amount", value: `${declared.value} ${declared.unit}` }]
    : [];
  return { lines: [...head, ...amount, ...messageFacts(body.message)], amount: declared, recipients: [] };
}

/** What a request for a new key says. */
export function factsOfMaking({ body, epoch }: FederatedRequest): UseFacts {
  if (body.kind !== "generate") return { lines: [], amount: null, recipients: [] };
  return {
    lines: [
      { label: "type", value: body.type },
      { label: "custody", value: body.custody },
      { label: "control", value: body.control },
      { label: "policy", value: body.policy ?? "none" },
      { label: "epoch", value: String(epoch) },
    ],
    amount: null,
    recipients: [],
  };
}
