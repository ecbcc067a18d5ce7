import { equalBytes } from "../../crypto/bytes.ts";
import { canon } from "../../crypto/canon.ts";
import { canSealTo } from "../../crypto/hpke.ts";
import { type Certificate, certificateHash, certificateSignatureHolds } from "./certificate.ts";
import { evaluateCommitments, evaluatePoints, type Group, identifier } from "./groups.ts";
import {
  type Culprit,
  type Message,
  messageHash,
  messageSignatureHolds,
  type Payload,
  type Round,
  type SignedMessage,
} from "./message.ts";
import { type CeremonyPlan, type CeremonyTerms, planCeremony } from "./plan.ts";
import { verifyProof } from "./proof.ts";

export type Reason = Culprit["reason"];
export type PayloadOf<R extends Round> = Extract<Payload, { readonly round: R }>;

/** The payload of a message if it is of that round. */
export function payloadOf<R extends Round>(message: SignedMessage | undefined, round: R): PayloadOf<R> | null {
  const payload = message?.message.payload;
  return payload?.round === round ? (payload as PayloadOf<R>) : null;
}

/** Context in which a dealer of a resharing proves the constant of its polynomial. */
export function dealerContext(plan: CeremonyPlan, index: number): Uint8Array {
  return canon("keyhold/v1/federation-dealer-proof", plan.orderHash, index);
}

/** Context in which a holder proves its new share: of this key, generation and attempt alone (docs/protocol.md §8.9). */
export function shareContext(certificate: Certificate, index: number): Uint8Array {
  const { requestId, attempt } = certificate;
  return canon("keyhold/v1/federation-share-proof", requestId, attempt, certificateHash(certificate), index);
}

/** True when the message is of this very attempt, from one that may say it, to one that may hear it. */
export function isAddressed(plan: CeremonyPlan, m: Message): boolean {
  if (m.requestId !== plan.requestId || m.attempt !== plan.attempt || !equalBytes(m.orderHash, plan.orderHash))
    return false;
  if (!plan.roster.includes(m.from)) return false;
  switch (m.payload.round) {
    case "commit":
    case "echo":
    case "complaint":
    case "confirm":
      return m.to === 0;
    case "reveal":
      return m.to === 0 && plan.dealers.includes(m.from);
    case "share":
      return m.to !== m.from && plan.dealers.includes(m.from) && plan.receivers.includes(m.to);
    case "nonces":
    case "partial":
      return false;
  }
}

/** The library's proof of knowledge, which it checks in round 2 alone: with a polynomial of our own that is public. */
function knowsConstant(group: Group, index: number, commitments: readonly Uint8Array[], proof: Uint8Array): boolean {
  const checker = {
    identifier: index === 1 ? 2n : 1n,
    coefficients: [1n, 1n],
    commitment: [],
    signers: { min: 2, max: 2 },
    step: 1 as const,
  };
  const said = {
    identifier: identifier(group, index),
    commitment: commitments.slice(0, 2).map((c) => new Uint8Array(c)),
    proofOfKnowledge: new Uint8Array(proof),
  };
  try {
    group.frost.DKG.round2(checker, [said]);
    return true;
  } catch {
    return false;
  }
}

/** What is wrong with a first message; null where nothing is. */
export function judgeCommit(plan: CeremonyPlan, from: number, commit: PayloadOf<"commit">): Reason | null {
  const { group, threshold, dealers, constants } = plan;
  const { commitments, proof } = commit;
  if (!canSealTo(commit.sealing)) return "bad_commitments";
  if (!dealers.includes(from)) return commitments.length === 0 && proof.length === 0 ? null : "bad_commitments";
  const [first] = commitments;
  if (commitments.length !== threshold || !first) return "bad_commitments";
  try {
    const points = commitments.map((c) => group.parsePoint(c));
    const constant = constants.get(from);
    if (constant && !points[0]?.equals(constant)) return "bad_commitments";
  } catch {
    return "bad_commitments";
  }
  const knows =
    plan.body.kind === "generate"
      ? knowsConstant(group, from, commitments, proof)
      : verifyProof(group, first, dealerContext(plan, from), proof);
  return knows ? null : "bad_proof";
}

/** True when the share is the committed polynomial's at the index: the equation of FROST's `vss_verify`. */
export function shareFits(group: Group, commitments: readonly Uint8Array[], index: number, share: Uint8Array): boolean {
  try {
    const scalar = group.parseScalar(share);
    const points = commitments.map((c) => group.parsePoint(c));
    return scalar !== 0n && group.base.multiply(scalar).equals(evaluatePoints(points, index));
  } catch {
    return false;
  }
}

/** True when an echo names the whole roster in order, and for its sender what that sender has said itself. */
export function isEchoSound(plan: CeremonyPlan, echo: PayloadOf<"echo">, from: number, commit: Uint8Array | null) {
  const { seen } = echo;
  if (seen.length !== plan.roster.length || !seen.every((s, i) => s.index === plan.roster[i])) return false;
  const own = seen.find((s) => s.index === from);
  return commit === null || (own !== undefined && equalBytes(own.hash, commit));
}

/** Dealers that a complaint names: of what it says about others, nobody or itself nothing counts. */
export function accusedBy(plan: CeremonyPlan, complaint: PayloadOf<"complaint">, from: number): readonly number[] {
  if (!plan.receivers.includes(from)) return [];
  return plan.dealers.filter((dealer) => dealer !== from && complaint.accused.includes(dealer));
}

/** True when a dealer that `complainer` accuses has laid open a share that fits. */
export function isCleared(
  plan: CeremonyPlan,
  commit: PayloadOf<"commit">,
  reveal: PayloadOf<"reveal">,
  complainer: number,
): boolean {
  const share = reveal.shares.find((s) => s.to === complainer)?.share;
  return share !== undefined && shareFits(plan.group, commit.commitments, complainer, share);
}

/** What is wrong with a confirmation of this very certificate; null where nothing is or where it is of another one. */
export function judgeConfirm(manifest: CeremonyPlan["manifest"], certificate: Certificate, group: Group, m: Message) {
  if (m.payload.round !== "confirm" || !equalBytes(m.payload.certificateHash, certificateHash(certificate)))
    return null;
  const { signature, proof } = m.payload;
  if (!certificateSignatureHolds(manifest, certificate, { index: m.from, signature })) return "bad_proof";
  if (!certificate.holders.includes(m.from)) return proof.length === 0 ? null : "bad_proof";
  const point = evaluateCommitments(group, certificate.commitments, m.from);
  return verifyProof(group, point, shareContext(certificate, m.from), proof) ? null : "bad_proof";
}

/** True for two messages of one sender to the same ear in the same round that say two things. */
export function isEquivocation(a: Message, b: Message): boolean {
  const same = a.from === b.from && a.to === b.to && a.payload.round === b.payload.round;
  return same && !equalBytes(messageHash(a), messageHash(b));
}

function evidenceHolds(plan: CeremonyPlan, culprit: Culprit, certificate: Certificate | null): boolean {
  const { index, reason, evidence } = culprit;
  const own = evidence.filter(({ message }) => message.from === index);
  const ownOf = (round: Round) => own.find(({ message }) => message.payload.round === round);
  const commit = payloadOf(ownOf("commit"), "commit");
  switch (reason) {
    case "equivocation": {
      const [a, b] = own;
      return a !== undefined && b !== undefined && isEquivocation(a.message, b.message);
    }
    case "bad_commitments":
      return commit !== null && judgeCommit(plan, index, commit) === reason;
    case "bad_proof": {
      if (commit) return judgeCommit(plan, index, commit) === reason;
      const confirm = ownOf("confirm");
      if (!confirm || certificate?.requestId !== plan.requestId || certificate.attempt !== plan.attempt) return false;
      return judgeConfirm(plan.manifest, certificate, plan.group, confirm.message) === reason;
    }
    case "bad_echo": {
      const echo = payloadOf(ownOf("echo"), "echo");
      const said = ownOf("commit");
      return echo !== null && !isEchoSound(plan, echo, index, said ? messageHash(said.message) : null);
    }
    case "bad_share": {
      const reveal = payloadOf(ownOf("reveal"), "reveal");
      const charge = evidence.find(({ message }) => message.payload.round === "complaint");
      const complaint = payloadOf(charge, "complaint");
      if (!commit || !reveal || !charge || !complaint) return false;
      const { from } = charge.message;
      return accusedBy(plan, complaint, from).includes(index) && !isCleared(plan, commit, reveal, from);
    }
    case "bad_partial":
      return false;
  }
}

/**
 * True when the evidence proves to anybody with the terms that this server broke the ceremony's rules.
 *
 * @param certificate Needed for a wrong proof in a confirmation alone: the certificate that it confirms.
 */
export function blameHolds(terms: CeremonyTerms, culprit: Culprit, certificate: Certificate | null = null): boolean {
  try {
    const plan = planCeremony(terms);
    const { evidence, index } = culprit;
    if (!plan.roster.includes(index) || evidence.length === 0) return false;
    const genuine = evidence.every((m) => isAddressed(plan, m.message) && messageSignatureHolds(plan.manifest, m));
    return genuine && evidenceHolds(plan, culprit, certificate);
  } catch {
    return false;
  }
}
