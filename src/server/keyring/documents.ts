import type { FederatedKeyId, KeyringId, KeyringRequestId, UserId, WorkspaceId } from "../../ids.ts";
import { SERVERS_MAX } from "../../protocol/federation/kinds.ts";
import type { SignedManifest } from "../../protocol/federation/manifest.ts";
import { policyHash } from "../../protocol/federation/policy.ts";
import type { Fees, Party } from "../../protocol/keyring/keyring.ts";
import { bool, hashIdOf, id, list, nullable, oneOf, struct, text, u53, uint } from "../../wire/codec.ts";
import { signedManifest, signedPolicy } from "../../wire/federation/records.ts";
import { credits, fees, keyringName, party } from "../../wire/keyring/records.ts";
import {
  type Equivocation,
  equivocation,
  eventView,
  type KeyringEvent,
  type LedgerEntry,
  ledgerEntry,
} from "../../wire/keyring/views.ts";
import { hash32 } from "../../wire/records.ts";
import { type DocumentKind, kindOf } from "../documents.ts";
import { CHAIN_MAX } from "../federation/documents.ts";
import type { PolicyShelf } from "../federation/policies.ts";

/** Documents of a registry (docs/protocol.md §9.1): its own kinds, beside those of a federation's member. */

const workspaceId = hashIdOf<WorkspaceId>();
const userId = id<UserId>();

/** For what an account's key at the registry signs. */
export const ROLES = ["owner", "party"] as const;
export type Role = (typeof ROLES)[number];

/** An account's key: id = role:account, owner = the account. */
export interface PersonBody {
  readonly key: Uint8Array;
  readonly enrolledAtMs: number;
}
export const PERSON: DocumentKind<PersonBody> = kindOf("keyringPerson", struct({ key: hash32, enrolledAtMs: u53 }));

/** Whose a key is, and for what: id = the key in hexadecimal, owner = the account. */
export interface PersonKeyBody {
  readonly userId: UserId;
  readonly role: Role;
}
export const PERSON_KEY: DocumentKind<PersonKeyBody> = kindOf(
  "keyringPersonKey",
  struct({ userId, role: oneOf(ROLES) }),
);

/** A workspace: id = its policy, owner "", place = when it was made. */
export interface WorkspaceBody {
  readonly name: string;
  readonly createdAtMs: number;
}
export const WORKSPACE: DocumentKind<WorkspaceBody> = kindOf(
  "workspace",
  struct({ name: keyringName, createdAtMs: u53 }),
);

/** Chains of workspaces' policies, in documents of their own. */
export const WORKSPACES: PolicyShelf = {
  policies: kindOf("workspacePolicy", struct({ chain: list(signedPolicy, { min: 1, max: CHAIN_MAX }) })),
  links: kindOf("workspaceLink", struct({ policyId: workspaceId, version: uint(0xffff_ffff, 1) })),
  drafts: kindOf("workspaceDraft", struct({ link: signedPolicy })),
};

/** A workspace of an owner's key: id = key:workspace, owner = the key in hexadecimal, place as the workspace's. */
export interface OwnershipBody {
  readonly workspaceId: WorkspaceId;
}
export const OWNERSHIP: DocumentKind<OwnershipBody> = kindOf("workspaceOwner", struct({ workspaceId }));

/** A party with what the registry has decided about it. */
export interface KeyringParty {
  readonly party: Party;
  /** Not in new snapshots: it has said two things about one item. */
  readonly quarantined: boolean;
}

/** Admins of one keyring. */
export const ADMINS_MAX = 32;

/** Removed parties that one keyring remembers. */
export const FORMER_MAX = 256;

/** A keyring: id = keyring, owner "", place = when it was made. */
export interface KeyringBody {
  readonly name: string;
  readonly manifest: SignedManifest;
  readonly threshold: number;
  readonly fees: Fees;
  readonly active: boolean;
  readonly admins: readonly UserId[];
  /** Ascending by index. */
  readonly parties: readonly KeyringParty[];
  /** Parties that were removed: their names stay theirs, for credits go by them. */
  readonly former: readonly Party[];
  /** The newest of each party's key. */
  readonly evidence: readonly Equivocation[];
  readonly createdAtMs: number;
}
export const KEYRING: DocumentKind<KeyringBody> = kindOf(
  "keyring",
  struct({
    name: keyringName,
    manifest: signedManifest,
    threshold: uint(SERVERS_MAX, 1),
    fees,
    active: bool,
    admins: list(userId, { min: 1, max: ADMINS_MAX }),
    parties: list(struct({ party, quarantined: bool }), { min: 1, max: SERVERS_MAX }),
    former: list(party, { max: FORMER_MAX }),
    evidence: list(equivocation, { max: SERVERS_MAX }),
    createdAtMs: u53,
  }),
);

/** A keyring that an account has made: id = keyring, owner = the account. */
export const KEYRING_MADE: DocumentKind<object> = kindOf("keyringMade", struct({}));

/** What is heard of a party's key: id = the key in hexadecimal, owner "". */
export interface PartyHealthBody {
  readonly lastSeenAtMs: number | null;
  readonly lastResponseAtMs: number | null;
  readonly version: string;
  readonly state: string;
  readonly deadLetters: number;
}
export const PARTY_HEALTH: DocumentKind<PartyHealthBody> = kindOf(
  "partyHealth",
  struct({
    lastSeenAtMs: nullable(u53),
    lastResponseAtMs: nullable(u53),
    version: text({ max: 64 }),
    state: text({ max: 256 }),
    deadLetters: u53,
  }),
);

/** An event: id = workspace:number, owner = workspace, place = number; all of them once more under the owner "". */
export const EVENT: DocumentKind<KeyringEvent> = kindOf("keyringEvent", eventView);

/** How many events a workspace has, or under "all" the registry: id = workspace, owner "". */
export const EVENT_COUNT: DocumentKind<{ readonly seq: number }> = kindOf("keyringEventCount", struct({ seq: u53 }));

/** What an account of the ledger holds: id = its name, owner = what kind of account; the operator's is what it owes. */
export interface BalanceBody {
  readonly amount: number;
}
export const BALANCE: DocumentKind<BalanceBody> = kindOf("ledgerBalance", struct({ amount: credits }));

/** An entry: id = kind:request, or scope:number; owner = scope, a workspace or of a payout a keyring; place = number. */
export const ENTRY: DocumentKind<LedgerEntry> = kindOf("ledgerEntry", ledgerEntry);

/** Entries of one scope, and what its open requests hold: id = scope, owner "". */
export interface LedgerHeadBody {
  readonly seq: number;
  readonly escrowed: number;
}
export const LEDGER_HEAD: DocumentKind<LedgerHeadBody> = kindOf("ledgerHead", struct({ seq: u53, escrowed: credits }));

// ---- ids of documents that name two things ----

export const personId = (role: Role, user: UserId): string => `${role}:${user}`;
export const keyText = (key: Uint8Array): string => key.toHex();
export const ownershipId = (key: Uint8Array, workspace: WorkspaceId): string => `${key.toHex()}:${workspace}`;
export const draftId = (document: Parameters<typeof policyHash>[0]): string => policyHash(document).toHex();

/** What an event is about; ids that are left out are null. */
export interface EventSubject {
  readonly workspaceId?: WorkspaceId;
  readonly keyringId?: KeyringId;
  readonly requestId?: KeyringRequestId;
  readonly keyId?: FederatedKeyId;
}
