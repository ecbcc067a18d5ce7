import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import {
  checkManifest,
  isSignedBy,
  type Manifest,
  rosterMin,
  type SignedManifest,
  verifyManifest,
} from "../../protocol/federation/manifest.ts";
import type { Party, Snapshot } from "../../protocol/keyring/keyring.ts";
import { feeOf } from "../../protocol/keyring/ledger.ts";
import type { KeyringBody, KeyringParty } from "./documents.ts";

const bad = (what: string) => new Fault("bad_input", `this keyring cannot be: ${what}`);

/** Ascending by index. */
export const byIndex = (parties: readonly KeyringParty[]): readonly KeyringParty[] =>
  parties.toSorted((a, b) => a.party.index - b.party.index);

/**
 * Checks the parties of a keyring and how many of them must agree: each beside a server of its own, and no fewer than
 * shares of the federation make a key.
 *
 * @throws Fault bad_input
 */
export function checkParties(manifest: Manifest, parties: readonly Party[], threshold: number): void {
  const differ = (of: (party: Party) => string | number) => new Set(parties.map(of)).size === parties.length;
  if (!differ(({ name }) => name)) throw bad("two of its parties have one name");
  if (!differ(({ index }) => index)) throw bad("two of its parties stand beside one server");
  if (!differ(({ key }) => key.toHex())) throw bad("two of its parties have one key");
  const stranger = parties.find(({ index }) => !manifest.servers.some((server) => server.index === index));
  if (stranger) throw bad(`the federation has no server ${stranger.index} for the party ${stranger.name}`);
  if (threshold < manifest.threshold)
    throw bad(`its threshold is below the federation's, which is ${manifest.threshold}`);
  if (threshold > parties.length) throw bad(`it has ${parties.length} parties, and ${threshold} must agree`);
}

/** Verifies a manifest by itself, of whatever epoch: form, and all its servers' signatures. @throws Fault bad_input, integrity */
export function verifyWholeManifest(signed: SignedManifest): void {
  if (signed.manifest.epoch === 1) {
    verifyManifest(signed, null);
    return;
  }
  checkManifest(signed.manifest);
  if (!signed.manifest.servers.every(({ identity }) => isSignedBy(signed, identity)))
    throw new Fault("integrity", "not every server of this federation has signed the manifest");
}

/** How many parties a request takes at least: as many as must agree, and as the federation's work takes servers. */
function partiesMin({ manifest: { manifest }, threshold }: KeyringBody, kind: "key" | "signature"): number {
  const servers = kind === "key" ? rosterMin(manifest.servers.length, manifest.threshold) : manifest.threshold;
  return Math.max(threshold, servers);
}

/**
 * What of a keyring holds for a new request: its parties without those in quarantine, the threshold and the fee.
 *
 * @throws Fault conflict when the keyring takes no requests or has too few parties left; bad_input
 */
export function snapshotOf(keyring: KeyringBody, kind: "key" | "signature", items: number): Snapshot {
  if (!keyring.active) throw new Fault("conflict", "this keyring takes no requests");
  const parties = byIndex(keyring.parties).flatMap(({ party, quarantined }) => (quarantined ? [] : [party]));
  const least = partiesMin(keyring, kind);
  if (parties.length < least)
    throw new Fault("conflict", `this keyring has ${parties.length} parties left, and such a request takes ${least}`, {
      hint: "keyhold keyring status",
    });
  return { parties, threshold: keyring.threshold, fee: feeOf(keyring.fees[kind], items) };
}

/** Demands that a name goes to no other key than before: what a party has earned goes by its name. @throws Fault conflict */
export function demandOwnName({ former }: KeyringBody, { name, key }: Party): void {
  if (former.some((one) => one.name === name && !equalBytes(one.key, key)))
    throw new Fault("conflict", `another party of this keyring was called ${name}`, { hint: "choose another name" });
}
