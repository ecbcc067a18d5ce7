import { Fault } from "../../errors.ts";
import { type CeremonyDraft, PARTICIPANTS, STAGE_MAX_MS } from "./model.ts";
import { checkOutput } from "./output.ts";

const bad = (what: string, hint?: string) => new Fault("bad_input", what, hint === undefined ? {} : { hint });

function oneEach<T>(values: readonly (T | null)[], what: string): void {
  const given = values.filter((value) => value !== null);
  if (new Set(given).size !== given.length) throw bad(`two seats have the same ${what}`);
}

function checkSlots({ slots }: CeremonyDraft): void {
  if (slots.length < PARTICIPANTS.min || slots.length > PARTICIPANTS.max) {
    throw bad(`a ceremony has ${PARTICIPANTS.min} to ${PARTICIPANTS.max} participants`);
  }
  for (const [at, { index, invite, account }] of slots.entries()) {
    if (index !== at + 1) throw bad("seats are numbered 1, 2, 3 … in order");
    if ((invite === null) === (account === null)) throw bad(`seat ${index} is either an invite's or an account's`);
  }
  oneEach(
    slots.map(({ name }) => name),
    "name",
  );
  oneEach(
    slots.map(({ invite }) => invite?.toHex() ?? null),
    "invite",
  );
  oneEach(
    slots.map(({ account }) => account),
    "account",
  );
}

function checkWallet({ output, slots, minimum, policy, replaces }: CeremonyDraft): void {
  if (output.kind !== "multisig") return;
  if (minimum !== slots.length) {
    throw bad("a multisig wallet needs all its participants", "so that its m-of-n is known: leave out --minimum");
  }
  if (policy.collect !== "nobody" || replaces !== null) throw bad("of a multisig wallet nothing is kept in the store");
}

/**
 * What no codec can hold to a draft: order, uniqueness, and bounds that depend on each other
 * (docs/protocol.md §10.4). Signatures are `verifyCeremonyManifest`'s.
 *
 * @throws Fault bad_input
 */
export function checkDraft(draft: CeremonyDraft): void {
  checkSlots(draft);
  const { minimum, policy, slots } = draft;
  if (minimum < PARTICIPANTS.min || minimum > slots.length) {
    throw bad("the minimum is 2 to the number of participants");
  }
  for (const stage of [draft.commitMs, draft.revealMs]) {
    if (stage < 1_000 || stage > STAGE_MAX_MS) throw bad("a stage lasts a second to 90 days");
  }
  if (policy.quorum > minimum) {
    throw bad("more participants would have to agree than may be there", "the quorum is at most the minimum");
  }
  if (policy.collect === "nobody" && policy.quorum > 0) throw bad("nobody may collect: a quorum has nothing to allow");
  checkOutput(draft.output, slots.length);
  checkWallet(draft);
}
