import { wipe } from "../../crypto/bytes.ts";
import type { HpkeKeyPair } from "../../crypto/hpke.ts";
import { blameHolds } from "../../protocol/federation/blame.ts";
import type { Certificate, CertificateSignature } from "../../protocol/federation/certificate.ts";
import type { Manifest } from "../../protocol/federation/manifest.ts";
import type { SignedMessage } from "../../protocol/federation/message.ts";
import { nonceBlameHolds } from "../../protocol/federation/noncesblame.ts";
import type { CeremonyTerms } from "../../protocol/federation/plan.ts";
import type { SignedOrder, SignedRequest } from "../../protocol/federation/request.ts";
import { completeSignature } from "../../protocol/federation/signing.ts";
import { assembleCertificate, confirmCulprits } from "../../protocol/federation/transcript.ts";
import { openPartial, type Use } from "../../protocol/federation/use.ts";
import { encodeJson } from "../../wire/codec.ts";
import { type Exchange, type Judge, type Standstill, startExchange } from "../../wire/federation/exchange.ts";
import { signedMessage } from "../../wire/federation/records.ts";
import type { SaidRow, TaskWork } from "./requestdocuments.ts";

/** Messages of one task: what fits a frame of 128 KiB with room to spare, in bytes of JSON, and how many. */
const TASK_MAX = { bytes: 64 * 1_024, messages: 128 } as const;

/** What an attempt is about. */
export interface AttemptTerms {
  readonly manifest: Manifest;
  readonly asked: SignedRequest;
  readonly order: SignedOrder;
  /** Of a use: the key. */
  readonly certificate: Certificate | null;
}

const ceremonyOf = ({ manifest, asked, order }: AttemptTerms): CeremonyTerms => ({
  manifest,
  request: asked.request,
  order: order.order,
  before: null,
});

const useOf = ({ manifest, asked, order }: AttemptTerms, certificate: Certificate): Use => ({
  manifest,
  certificate,
  request: asked.request,
  order: order.order,
});

function judgeOf(terms: AttemptTerms): Judge {
  const { certificate } = terms;
  if (certificate !== null) return (culprit) => nonceBlameHolds(useOf(terms, certificate), culprit);
  return (culprit, certificates) => [null, ...certificates].some((one) => blameHolds(ceremonyOf(terms), culprit, one));
}

/** The name under which a message is noted as brought. */
export const messageName = ({ message: { from, to, payload } }: SignedMessage): string =>
  `${from}.${to}.${payload.round}`;

/** An attempt as far as what is stored says: {@link startExchange}, with everything once more. */
export function resumeExchange(
  terms: AttemptTerms,
  rows: readonly { readonly index: number; readonly said: SaidRow }[],
): Exchange {
  const { order } = terms.order;
  const receivers = terms.certificate === null ? order.roster : [];
  const exchange = startExchange(terms.manifest, terms.order, receivers, judgeOf(terms));
  const own = rows.filter(({ said }) => said.attempt === order.attempt);
  for (const { index, said } of own) {
    if (said.messages.length > 0 || said.outcome !== null) exchange.hear(index, said.messages, said.outcome);
    for (const { why, final } of said.misses) exchange.miss(index, why, final);
  }
  const all = exchange.standstill().said;
  for (const { index, said } of own) {
    const names = new Set(said.brought);
    exchange.brought(
      index,
      all.filter((one) => names.has(messageName(one))),
    );
  }
  return exchange;
}

function portion(messages: readonly SignedMessage[]): readonly SignedMessage[] {
  let size = 0;
  const fits = messages.slice(0, TASK_MAX.messages).findIndex((one, i) => {
    size += encodeJson(signedMessage, one).length + 1;
    return i > 0 && size > TASK_MAX.bytes;
  });
  return messages.slice(0, fits < 0 ? TASK_MAX.messages : fits);
}

/** What the servers of an attempt are to be told next; nothing once it stands still. */
export function nextStep(
  exchange: Exchange,
  { order }: SignedOrder,
): readonly { readonly index: number; readonly work: TaskWork }[] {
  const { attempt, roster } = order;
  return roster.flatMap((index): readonly { index: number; work: TaskWork }[] => {
    if (exchange.mayBegin(index)) return [{ index, work: { do: "begin" } }];
    const due = exchange.dueTo(index);
    return due.length === 0 ? [] : [{ index, work: { do: "relay", attempt, messages: portion(due) } }];
  });
}

/** Who spoiled an attempt: proven, and not. */
export interface Spoilt {
  readonly at: "spoilt";
  readonly culprits: readonly number[];
  readonly suspects: readonly number[];
}

/** What an attempt to make a key has come to. */
export type Made =
  | Spoilt
  | {
      readonly at: "agreed";
      readonly certificate: Certificate;
      readonly signatures: readonly CertificateSignature[];
      /** Proofs of the new shares. */
      readonly confirmations: readonly SignedMessage[];
    };

const spoiltBy = (culprits: readonly { readonly index: number }[], suspects: Iterable<number>): Spoilt => {
  const proven = [...new Set(culprits.map(({ index }) => index))];
  return { at: "spoilt", culprits: proven, suspects: [...suspects].filter((index) => !proven.includes(index)) };
};

/** Looks for the one certificate that enough servers have signed; otherwise for who is to blame. */
export function concludeMaking(terms: AttemptTerms, end: Standstill): Made {
  const { confirmed, said, culprits, suspects } = end;
  const ceremony = ceremonyOf(terms);
  const views = [...confirmed.values()].flatMap(({ certificate }) => (certificate ? [{ certificate }] : []));
  // whoever was proven to cheat holds no share of what is accepted
  const agreed = culprits.length > 0 ? null : assembleCertificate(ceremony, views, said);
  if (agreed) {
    const confirmations = said.filter(({ message }) => message.payload.round === "confirm");
    return { at: "agreed", ...agreed, confirmations };
  }
  const liars = views.flatMap(({ certificate }) => confirmCulprits(ceremony, certificate, said));
  return spoiltBy([...culprits, ...liars], suspects.keys());
}

/** What an attempt to use a key has come to: all partial results, or who kept them back. */
export type Used = Spoilt | { readonly at: "whole"; readonly partials: readonly SignedMessage[] };

/** Looks whether every server of the roster has given its partial result. */
export function concludeUse({ order }: AttemptTerms, end: Standstill): Used {
  const partials = end.said.filter(({ message }) => message.payload.round === "partial");
  const whole = order.order.roster.every((index) => partials.some(({ message }) => message.from === index));
  if (whole && end.culprits.length === 0) return { at: "whole", partials };
  return spoiltBy(end.culprits, end.suspects.keys());
}

/**
 * Opens the partial signatures and completes the signature, which is verified.
 *
 * @param pair The registry's, which the request names as recipient.
 */
export async function completeUse(
  terms: AttemptTerms,
  certificate: Certificate,
  said: readonly SignedMessage[],
  pair: HpkeKeyPair,
): Promise<Spoilt | { readonly at: "signed"; readonly signature: Uint8Array }> {
  const use = useOf(terms, certificate);
  const of = (round: string) => said.filter(({ message }) => message.payload.round === round);
  const partials = await Promise.all(of("partial").map((one) => openPartial(use, pair, one)));
  try {
    const done = completeSignature({ ...use, nonces: of("nonces"), partials, owner: null });
    return done.result === "signed" ? { at: "signed", signature: done.signature } : spoiltBy(done.culprits, []);
  } finally {
    wipe(...partials.flatMap(({ value }) => value ?? []));
  }
}
