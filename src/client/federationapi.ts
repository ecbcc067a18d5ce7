import type {
  Control,
  Custody,
  FederatedType,
  ImportOrigin,
  KeyOrigin,
  SignForm,
} from "../protocol/federation/kinds.ts";

/** Facts of one federation that this profile has joined. */
export interface FederationInfo {
  readonly name: string;
  readonly federationId: string;
  readonly epoch: number;
  readonly threshold: number;
  readonly servers: readonly { readonly index: number; readonly url: string; readonly pin: string }[];
  /** Public halves of this account's keys there, hex. */
  readonly requestKeyHex: string;
  readonly approvalKeyHex: string;
}

/** One server's line of `federation check`. */
export interface ServerCheck {
  readonly index: number;
  readonly url: string;
  /** `ok`, or what is wrong, in words. */
  readonly state: string;
  readonly version: string | null;
  readonly latencyMs: number | null;
  readonly clockSkewMs: number | null;
  readonly tls: string | null;
}

/** One key's line of `federation check`. */
export interface KeyCheck {
  readonly name: string | null;
  readonly keyId: string;
  readonly generation: number;
  readonly threshold: number;
  /** Indices of servers that hold a live share, and that know the certificate. */
  readonly live: readonly number[];
  readonly certified: readonly number[];
  readonly refreshedAt: string;
  /** What to do about it: `keyhold key repair NAME`, or null. */
  readonly proposal: string | null;
}

export interface FederationCheck {
  readonly servers: readonly ServerCheck[];
  readonly keys: readonly KeyCheck[];
  readonly ok: boolean;
}

/** A federated key as its owner knows it. */
export interface FederatedKeyInfo {
  readonly name: string | null;
  readonly federation: string;
  readonly keyId: string;
  readonly type: FederatedType;
  readonly custody: Custody;
  /** `unilateral` or `shared`; of a shared key whose shares were let out `unilateral in fact`, for good. */
  readonly control: string;
  /** What is true for good: `delegated`, `self-custodial`, `released`, `custodial`; see P12. */
  readonly shown: string;
  /** `custodial`: a ceremony's server had combined it before it was shared out. */
  readonly origin: KeyOrigin;
  /** Servers have let its shares out, and its owner could put it together. */
  readonly released: boolean;
  readonly publicKeyHex: string;
  readonly threshold: number;
  readonly holders: readonly number[];
  readonly generation: number;
  readonly frozen: boolean;
}

/** What one server says of a request. */
export interface RequestAtServer {
  readonly index: number;
  readonly url: string;
  readonly status: string;
  readonly why: string;
  readonly explanations: readonly { readonly decision: string; readonly rule: string | null; readonly why: string }[];
}

/** A request as its owner or an approver sees it: all servers together. */
export interface FederatedRequestInfo {
  readonly requestId: string;
  readonly federation: string;
  readonly kind: string;
  /** What a `release` is for, otherwise null. */
  readonly purpose: "retrieve" | "export" | "sign" | null;
  /** Of all servers together. */
  readonly status: string;
  readonly keyId: string | null;
  readonly name: string | null;
  readonly createdAt: string;
  readonly expiresAt: string;
  readonly requesterHex: string;
  /** Six words of the digest, to compare aloud. */
  readonly words: readonly string[];
  /** What is asked for, in words: type, custody, message. */
  readonly facts: readonly { readonly label: string; readonly value: string }[];
  readonly servers: readonly RequestAtServer[];
  readonly votes: readonly {
    readonly approver: string;
    readonly verdict: "approve" | "reject";
    readonly reason: string;
    readonly expiresAt: string;
  }[];
  readonly culprits: readonly { readonly index: number; readonly url: string; readonly reason: string }[];
}

/** What asking for a key or a use led to. */
export interface FederatedResult {
  readonly requestId: string;
  /** `fulfilled`, or why not yet: `awaiting_approval`, `pending`; `degraded` where a server was left out. */
  readonly status: string;
  readonly keyId: string | null;
  readonly publicKeyHex: string | null;
  readonly signatureHex: string | null;
  readonly scheme: string | null;
  /** Servers that took no part. */
  readonly absent: readonly number[];
}

export interface GenerateFederated {
  readonly name: string;
  readonly federation: string;
  readonly type: FederatedType;
  readonly bytes: number;
  readonly custody: Custody;
  readonly control: Control;
  /** Name of a policy of the federation; of shared control alone. */
  readonly policy: string | null;
}

/** What a policy's chain holds. */
export interface PolicyInfo {
  readonly policyId: string;
  readonly name: string;
  readonly version: number;
  readonly hashHex: string;
  /** The newest link as the JSON that `policy set` takes. */
  readonly document: unknown;
  /** Servers that have this link, and those that differ. */
  readonly current: readonly number[];
  readonly behind: readonly number[];
}

/** The part of the client API that needs a federation (docs/client.md). All throw Fault. */
export interface FederationClient {
  federations(): Promise<readonly FederationInfo[]>;
  /** Drafts a manifest, lays it before all servers, and says who has accepted; again until all have. */
  createFederation(input: {
    readonly name: string;
    readonly threshold: number;
    readonly servers: readonly { readonly url: string; readonly pin: string }[];
  }): Promise<{
    readonly federationId: string;
    readonly complete: boolean;
    readonly roster: readonly { readonly url: string; readonly state: "waiting" | "accepted" | "member" | "away" }[];
  }>;
  joinFederation(input: {
    readonly url: string;
    readonly pin: string;
    readonly name: string | null;
    readonly invites: readonly { readonly url: string; readonly code: string }[];
  }): Promise<FederationInfo>;
  checkFederation(input: { readonly federation: string }): Promise<FederationCheck>;
  federatedKeys(): Promise<readonly FederatedKeyInfo[]>;
  /** @param input.key name, or the beginning of the id */
  federatedKey(input: { readonly key: string }): Promise<FederatedKeyInfo>;
  generateFederated(input: GenerateFederated): Promise<FederatedResult>;
  /** @param value the secret to share out: a scalar or, of `bytes`, any bytes; wiped. */
  importFederated(
    input: GenerateFederated & {
      readonly value: Uint8Array;
      /** `custodial` where a ceremony's server has seen it; left out: `imported`. */
      readonly origin?: ImportOrigin;
    },
  ): Promise<FederatedResult>;
  /** Without `form` the message itself; a digest, or an unsigned transaction, with `input` of a Bitcoin one. */
  signFederated(input: {
    readonly key: string;
    readonly message: Uint8Array;
    readonly amount: { readonly unit: string; readonly value: string } | null;
    readonly form?: SignForm;
    readonly input?: number;
    /** Secret of type `bytes` that is mixed into an ECDSA signature made here (docs/protocol.md §10.6). */
    readonly hedge?: string | null;
  }): Promise<FederatedResult>;
  /** The bytes of a `bytes` key, or with `export` the private key; the caller wipes them. */
  releaseFederated(input: {
    readonly key: string;
    readonly purpose: "retrieve" | "export";
  }): Promise<FederatedResult & { readonly value: Uint8Array | null }>;
  reshareFederated(input: {
    readonly key: string;
    readonly mode: "repair" | "refresh" | "reshare";
    readonly threshold: number | null;
    readonly holders: readonly number[] | null;
  }): Promise<FederatedResult>;
  federatedRequests(): Promise<readonly FederatedRequestInfo[]>;
  federatedRequest(input: { readonly requestId: string }): Promise<FederatedRequestInfo>;
  /** Goes on with a request that waited: what it led to, as at first. */
  continueRequest(input: {
    readonly requestId: string;
  }): Promise<FederatedResult & { readonly value: Uint8Array | null }>;
  cancelRequest(input: { readonly requestId: string }): Promise<FederatedRequestInfo>;
  approvals(): Promise<readonly FederatedRequestInfo[]>;
  vote(input: {
    readonly requestId: string;
    readonly verdict: "approve" | "reject";
    readonly reason: string;
  }): Promise<FederatedRequestInfo>;
  policies(input: { readonly federation: string }): Promise<readonly PolicyInfo[]>;
  /** Signs with this account's approval key and brings the link to every server; `complete` once its admins have. */
  setPolicy(input: {
    readonly federation: string;
    readonly document: unknown;
  }): Promise<PolicyInfo & { readonly complete: boolean }>;
  /** Compares every server's log of this account's keys. */
  auditFederation(input: { readonly federation: string }): Promise<{
    readonly ok: boolean;
    readonly servers: readonly { readonly index: number; readonly size: number; readonly headHex: string }[];
    /** Where servers contradict themselves, each other or this vault. */
    readonly findings: readonly string[];
    /** Servers that could not be asked, and why: nothing is said of them. */
    readonly unasked: readonly string[];
  }>;
}
