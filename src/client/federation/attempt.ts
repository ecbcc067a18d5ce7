import { wipe } from "../../crypto/bytes.ts";
import { hpkeSeal } from "../../crypto/hpke.ts";
import { requestSigner } from "../../protocol/federation/credentials.ts";
import { memberOf } from "../../protocol/federation/manifest.ts";
import type { SignedMessage } from "../../protocol/federation/message.ts";
import { type AttemptOrder, contributionInfo, type SignedOrder, signOrder } from "../../protocol/federation/request.ts";
import { type Exchange, type Judge, type Standstill, startExchange } from "../../wire/federation/exchange.ts";
import { portions } from "../../wire/federation/portions.ts";
import { ask, isAbsent } from "./answers.ts";
import type { Ground } from "./ground.ts";
import type { HeldRequest } from "./held.ts";

/** Bytes of the client's randomness that each server mixes into its own. */
const CONTRIBUTION_BYTES = 32;

/** What the requester seals to one server for an attempt; null for nothing. Wiped after sealing. */
export type Contribute = (index: number) => Uint8Array | null;

/** Fresh random bytes for each server of a ceremony. */
export const randomContribution =
  ({ random }: Pick<Ground, "random">): Contribute =>
  () =>
    random(CONTRIBUTION_BYTES);

/** Signs the order of a new attempt; nothing is sent or kept here. */
export async function makeOrder(
  { fleet, secret, random }: Pick<Ground, "fleet" | "secret" | "random">,
  held: HeldRequest,
  attempt: number,
  roster: readonly number[],
  contribute: Contribute,
  ownerNonces: AttemptOrder["ownerNonces"],
): Promise<SignedOrder> {
  const contributions: { index: number; sealed: Uint8Array }[] = [];
  for (const index of roster) {
    const plain = contribute(index);
    if (plain === null) continue;
    try {
      const info = contributionInfo(held.requestId, attempt, index);
      const sealed = await hpkeSeal(memberOf(fleet.manifest, index).sealing, info, plain, random);
      contributions.push({ index, sealed });
    } finally {
      wipe(plain);
    }
  }
  const order: AttemptOrder = { requestId: held.requestId, attempt, roster, contributions, ownerNonces };
  return signOrder(requestSigner(secret, fleet.manifest.federationId), order);
}

/** Servers that get a share of every dealer of this request. */
function receiversOf({ request }: HeldRequest, { order }: SignedOrder): readonly number[] {
  const { body } = request.request;
  if (body.kind === "generate") return order.roster;
  return body.kind === "reshare" ? body.holders : [];
}

/**
 * Relays one attempt between its servers until nobody has anything new to say (docs/protocol.md §8.5). Whatever a
 * server does, this ends.
 */
export async function runAttempt(
  { fleet }: Pick<Ground, "fleet">,
  held: HeldRequest,
  order: SignedOrder,
  judge: Judge,
): Promise<Standstill> {
  const exchange = startExchange(fleet.manifest, order, receiversOf(held, order), judge);
  const { roster } = order.order;
  for (;;) {
    const steps = roster.flatMap((index) => {
      if (exchange.mayBegin(index)) return [begin(fleet, exchange, order, index)];
      const due = exchange.dueTo(index);
      return due.length > 0 ? [bring(fleet, exchange, order, index, due)] : [];
    });
    if (steps.length === 0) return exchange.standstill();
    await Promise.all(steps);
  }
}

async function begin(fleet: Ground["fleet"], exchange: Exchange, order: SignedOrder, index: number): Promise<void> {
  const { value, fault } = await ask(fleet, index, "federation.begin", { order });
  if (fault !== null) exchange.miss(index, fault.message, !isAbsent(fault));
  else exchange.hear(index, value.messages, value.outcome);
}

async function bring(
  fleet: Ground["fleet"],
  exchange: Exchange,
  { order: { requestId, attempt } }: SignedOrder,
  index: number,
  due: readonly SignedMessage[],
): Promise<void> {
  for (const messages of portions(due)) {
    const { value, fault } = await ask(fleet, index, "federation.relay", { requestId, attempt, messages });
    if (fault !== null) {
      exchange.miss(index, fault.message, !isAbsent(fault));
      return;
    }
    exchange.brought(index, messages);
    exchange.hear(index, value.messages, value.outcome);
  }
}
