import type { AddressKind, AddressNetwork } from "../formats/address.ts";
import type { FederatedType, SignForm } from "../protocol/federation/kinds.ts";

/** Who this account is at its registry. */
export interface OwnerInfo {
  /** Ed25519 key that workspaces name, hex. */
  readonly keyHex: string;
  /** Six words of it, to compare aloud. */
  readonly words: readonly string[];
  /** Ed25519 identity of the registry, hex. */
  readonly registryHex: string;
}

export interface WorkspaceInfo {
  readonly workspaceId: string;
  readonly name: string;
  readonly version: number;
  readonly balance: number;
  readonly escrowed: number;
  readonly owners: readonly { readonly name: string; readonly keyHex: string; readonly own: boolean }[];
  /** In words: who must agree to changes of the workspace, and to requests. */
  readonly admins: string;
  readonly signers: string;
  /** The newest link as the JSON that `workspace policy --file` takes. */
  readonly document: unknown;
  /** Changes that wait for admins' signatures: version, hash, and who has signed. */
  readonly drafts: readonly {
    readonly version: number;
    readonly hashHex: string;
    readonly signedBy: readonly string[];
    /** What it changes of the newest link, in words. */
    readonly changes: readonly string[];
  }[];
}

export interface PartyInfo {
  readonly name: string;
  readonly index: number;
  readonly url: string;
  readonly keyHex: string;
  /** `ok`, or what is wrong, in words. */
  readonly state: string;
  readonly quarantined: boolean;
  readonly enrolled: boolean;
  readonly lastSeenAt: string | null;
  readonly lastResponseAt: string | null;
  readonly backlog: number;
  readonly deadLetters: number;
  readonly version: string;
}

export interface KeyringInfo {
  readonly keyringId: string;
  readonly name: string;
  readonly federation: string;
  /** Words of the federation's manifest, to compare with its operators. */
  readonly words: readonly string[];
  readonly threshold: number;
  readonly fees: { readonly key: number; readonly signature: number };
  readonly active: boolean;
  /** This account may change it. */
  readonly own: boolean;
  readonly parties: readonly PartyInfo[];
  /** Parties that said two things, with the file that proves it. */
  readonly evidence: readonly { readonly party: string; readonly at: string; readonly proof: unknown }[];
}

/** What a transaction or message says, in words and as policies see it. */
export interface UseFacts {
  readonly lines: readonly { readonly label: string; readonly value: string }[];
  readonly amount: { readonly unit: string; readonly value: string } | null;
  readonly recipients: readonly string[];
}

export interface KeyringItemInfo {
  readonly itemId: string;
  readonly keyId: string | null;
  readonly type: string;
  readonly publicKeyHex: string | null;
  /** What is asked for. */
  readonly facts: UseFacts;
  readonly signatureHex: string | null;
  readonly scheme: string | null;
}

export interface KeyringRequestInfo {
  readonly requestId: string;
  readonly workspace: string;
  readonly keyring: string;
  readonly kind: "key" | "signature";
  readonly status: string;
  readonly approved: boolean;
  readonly why: string;
  readonly fee: number;
  readonly threshold: number;
  readonly createdAt: string;
  readonly expiresAt: string;
  /** Name of the owner who asked. */
  readonly requester: string;
  /** Six words of the digest, to compare aloud. */
  readonly words: readonly string[];
  /** `answered`, `rejected: why`, `waiting`, `quarantined`. */
  readonly parties: readonly { readonly name: string; readonly state: string }[];
  readonly votes: readonly { readonly owner: string; readonly verdict: string; readonly reason: string }[];
  readonly items: readonly KeyringItemInfo[];
  /** Shares were let out to this client, which is to finish it: `request watch`. */
  readonly finishable: boolean;
}

export interface KeyringKeyInfo {
  readonly keyId: string;
  readonly workspace: string;
  readonly keyring: string;
  readonly type: FederatedType;
  readonly publicKeyHex: string;
  /** `delegated`, or `released` for good. */
  readonly shown: string;
  readonly threshold: number;
  readonly holders: readonly number[];
  readonly createdAt: string;
  /** Parties whose responses were verified here. */
  readonly confirmedBy: readonly string[];
}

/** What is to be signed by one key. */
export interface SignatureItem {
  /** Key id, or the beginning of it. */
  readonly key: string;
  readonly form: SignForm;
  readonly message: Uint8Array;
  /** Input of a PSBT; otherwise 0. */
  readonly input: number;
  /** Declared, of a message or digest; of transactions it is what they say. */
  readonly amount: { readonly unit: string; readonly value: string } | null;
}

/** A change of a workspace's owners and policies. */
export type WorkspaceChange =
  | { readonly kind: "ownerAdded"; readonly name: string; readonly keyHex: string }
  | { readonly kind: "ownerRemoved"; readonly name: string }
  /** How many owners must agree to changes and to requests. */
  | { readonly kind: "quorums"; readonly admin: number | null; readonly sign: number | null }
  /** A whole document, as in docs/policies.md. */
  | { readonly kind: "document"; readonly document: unknown }
  /** Signs a draft that another owner began, found by its hash. */
  | { readonly kind: "approve"; readonly hashHex: string };

/** The part of the client API that needs a registry (docs/client.md). Names or ids, or the beginning of an id. All throw Fault. */
export interface KeyringClient {
  /** Ties this account to its owner key at the registry, once. */
  keyringOwner(): Promise<OwnerInfo>;
  workspaces(): Promise<readonly WorkspaceInfo[]>;
  workspace(input: { readonly workspace: string }): Promise<WorkspaceInfo>;
  createWorkspace(input: {
    readonly name: string;
    /** Beside this account, which is the first owner. */
    readonly owners: readonly { readonly name: string; readonly keyHex: string }[];
    /** What this account is called in it. */
    readonly self: string;
    readonly admin: number;
    readonly sign: number;
  }): Promise<WorkspaceInfo>;
  /** `complete` once enough admins have signed. */
  changeWorkspace(input: {
    readonly workspace: string;
    readonly change: WorkspaceChange;
  }): Promise<WorkspaceInfo & { readonly complete: boolean }>;
  workspaceLedger(input: { readonly workspace: string }): Promise<
    readonly {
      readonly at: string;
      readonly kind: string;
      readonly amount: number;
      readonly requestId: string | null;
      readonly note: string;
    }[]
  >;
  workspaceEvents(input: { readonly workspace: string; readonly after: number }): Promise<
    readonly {
      readonly seq: number;
      readonly at: string;
      readonly event: string;
      readonly requestId: string | null;
      readonly keyId: string | null;
      readonly detail: string;
    }[]
  >;
  /** The token is told once. */
  createToken(input: {
    readonly workspace: string;
    readonly name: string;
    readonly expiresInMs: number;
  }): Promise<{ readonly tokenId: string; readonly token: string; readonly expiresAt: string }>;
  tokens(input: {
    readonly workspace: string;
  }): Promise<readonly { readonly tokenId: string; readonly name: string; readonly expiresAt: string }[]>;
  revokeToken(input: { readonly workspace: string; readonly tokenId: string }): Promise<void>;

  keyrings(): Promise<readonly KeyringInfo[]>;
  keyring(input: { readonly keyring: string }): Promise<KeyringInfo>;
  /** Of a federation that this profile has joined, or whose manifest one of its servers gives. */
  createKeyring(input: {
    readonly name: string;
    readonly federation: string;
    /** Default: the federation's. */
    readonly threshold: number | null;
    readonly fees: { readonly key: number; readonly signature: number };
    readonly parties: readonly { readonly name: string; readonly index: number; readonly keyHex: string }[];
  }): Promise<KeyringInfo>;
  changeKeyring(input: {
    readonly keyring: string;
    readonly change:
      | { readonly kind: "partyAdded"; readonly name: string; readonly index: number; readonly keyHex: string }
      | { readonly kind: "partyRemoved" | "partyCleared"; readonly name: string }
      | { readonly kind: "threshold"; readonly threshold: number }
      | { readonly kind: "fees"; readonly key: number; readonly signature: number }
      | { readonly kind: "active"; readonly active: boolean }
      | { readonly kind: "adminAdded" | "adminRemoved"; readonly userId: string }
      /** Goes over to the newest manifest that this vault knows of its federation. */
      | { readonly kind: "manifest" };
  }): Promise<KeyringInfo>;

  requestKey(input: {
    readonly workspace: string;
    readonly keyring: string;
    readonly type: FederatedType;
    /** Credits that it may cost at most, as its owner was shown; default whatever it costs. */
    readonly feeMax?: number | undefined;
  }): Promise<KeyringRequestInfo>;
  requestSignatures(input: {
    readonly items: readonly SignatureItem[];
    /** Of all together. */
    readonly feeMax?: number | undefined;
  }): Promise<KeyringRequestInfo>;
  keyringRequests(input: {
    readonly workspace: string;
    readonly status: string | null;
  }): Promise<readonly KeyringRequestInfo[]>;
  keyringRequest(input: { readonly requestId: string }): Promise<KeyringRequestInfo>;
  /** Looks at it, and finishes it where shares were let out to this client. */
  continueKeyringRequest(input: { readonly requestId: string }): Promise<KeyringRequestInfo>;
  cancelKeyringRequest(input: { readonly requestId: string }): Promise<KeyringRequestInfo>;
  /** Over all workspaces of this account: what waits for its vote. */
  keyringInbox(): Promise<readonly KeyringRequestInfo[]>;
  voteKeyring(input: {
    readonly requestId: string;
    readonly verdict: "approve" | "reject";
    readonly reason: string;
  }): Promise<KeyringRequestInfo>;
  keyringKeys(input: {
    readonly workspace: string;
    readonly keyring: string | null;
    readonly type: FederatedType | null;
  }): Promise<readonly KeyringKeyInfo[]>;
  keyringKey(input: { readonly key: string }): Promise<KeyringKeyInfo>;
  /** Derived here, of a certificate that was verified here. */
  keyringAddress(input: {
    readonly key: string;
    readonly kind: AddressKind;
    readonly network: AddressNetwork | null;
    readonly prefix: string | null;
  }): Promise<{ readonly address: string }>;
}
