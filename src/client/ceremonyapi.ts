import type {
  AbortReason,
  CeremonyFunction,
  CeremonyStatus,
  OutputSpec,
  StorePolicy,
} from "../protocol/ceremony/model.ts";

/** One seat of a ceremony, as it stands. */
export interface SeatInfo {
  readonly index: number;
  readonly name: string;
  /** `waiting`, `committed`, `revealed`, `withheld`, `lied`, `absent`. */
  readonly state: "waiting" | "committed" | "revealed" | "withheld" | "lied" | "absent";
  readonly function: CeremonyFunction | null;
  /** The account's name, where the seat is an account's. */
  readonly account: string | null;
  /** This vault holds its opening. */
  readonly own: boolean;
}

export interface CeremonyInfo {
  readonly ceremonyId: string;
  readonly name: string;
  readonly purpose: string;
  readonly output: OutputSpec;
  readonly policy: StorePolicy;
  readonly url: string;
  readonly pin: string;
  /** Fingerprint of the server's key to which openings are sealed: hex, and six words to compare aloud. */
  readonly keyHex: string;
  readonly words: readonly string[];
  readonly status: CeremonyStatus;
  /** When the stage ends. */
  readonly until: string | null;
  readonly minimum: number;
  /** How long participants may commit, and may reveal. */
  readonly commitMs: number;
  readonly revealMs: number;
  /** In the order of their numbers. */
  readonly seats: readonly SeatInfo[];
  /** This vault opened it. */
  readonly organiser: boolean;
  /** Of an aborted one. */
  readonly aborted: { readonly reason: AbortReason; readonly culprits: readonly string[] } | null;
  /** Of a finished one. */
  readonly result: {
    readonly keyId: string | null;
    readonly version: number | null;
    readonly custody: "custodial" | "self-custodial";
    /** Hash that openings reproduce. */
    readonly keyHashHex: string;
    readonly publicKeyHex: string | null;
    readonly descriptor: string | null;
  } | null;
  /** What this vault may do next, in words for people; empty for nothing. */
  readonly next: string;
  /** Wishes for the value that wait for this vault's agreement: who wishes. */
  readonly releases: readonly {
    readonly releaseHex: string;
    readonly by: string;
    readonly approvals: number;
    readonly needed: number;
    readonly done: boolean;
    readonly approved: boolean;
  }[];
  /** Run that this one repeats. */
  readonly previous: string | null;
}

/** What a participant mixes into what the system draws: typed words, dice, a file. */
export interface MixedEntropy {
  readonly kind: "typed" | "dice" | "file";
  /** The caller's to wipe. */
  readonly bytes: Uint8Array;
}

export interface CeremonyInviteInfo {
  readonly index: number;
  readonly name: string;
  /** One line to hand to this participant alone; null for a seat of an account. */
  readonly invite: string | null;
  readonly account: string | null;
}

/** A value that left the key store. */
export interface Collected {
  readonly name: string;
  readonly kind: OutputSpec["kind"];
  /** As a secret of the vault is stored: otpauth URI, PKCS#8, words … The caller's to wipe. */
  readonly value: Uint8Array;
  /** Type of secret under which the vault keeps it. */
  readonly type: string;
}

export interface OtpRequester {
  readonly kind: "account" | "device";
  /** Account name, or device key in hexadecimal. */
  readonly name: string;
}

export interface OtpEntryInfo {
  readonly keyId: string;
  readonly name: string;
  readonly version: number;
  readonly kind: "totp" | "hotp";
  readonly own: boolean;
  readonly status: "active" | "revoked" | "moved";
  readonly movedTo: string | null;
  readonly counter: number | null;
  readonly provisioned: boolean;
  readonly ceremonyId: string | null;
  /** Who issues it, by the key's record: text that the issuer chose (`--issuer`); null where it says nothing. */
  readonly issuer: string | null;
  readonly grants: readonly {
    readonly grantId: string;
    readonly to: OtpRequester;
    readonly wants: readonly ("code" | "provision")[];
    readonly perHour: number | null;
    readonly until: string | null;
  }[];
}

export interface OtpHandoutInfo {
  readonly askId: string;
  readonly to: OtpRequester;
  readonly want: "code" | "provision";
  readonly state: "open" | "used" | "expired" | "revoked" | "provisioned";
  readonly at: string;
  readonly expiresAt: string;
  readonly usedAt: string | null;
}

export interface OtpHanded {
  readonly askId: string;
  readonly keyId: string;
  readonly name: string;
  /** The code; or the otpauth:// URI. */
  readonly value: string;
  readonly expiresAt: string;
  /** When a code of a `totp` becomes good; null where it is already. */
  readonly from: string | null;
}

/** Which server: that of the profile (null), or another one by its URL and pin, with the device's key. */
export interface OtpServer {
  readonly url: string;
  readonly pin: string;
}

/**
 * The part of the client API for ceremonies and the distribution of one-time codes (docs/client.md). A ceremony is
 * named by its id, the beginning of it, or its name. All throw Fault.
 */
export interface CeremonyClient {
  /** Opens a ceremony at the profile's server. Repeats another run with `again`. */
  ceremonyOpen(input: {
    readonly name: string;
    readonly purpose: string;
    readonly output: OutputSpec;
    readonly policy: StorePolicy;
    /** Seats: a name to which an invite is made out, or an account. */
    readonly seats: readonly { readonly name: string; readonly account: string | null }[];
    readonly minimum: number | null;
    readonly commitMs: number;
    readonly revealMs: number;
    /** An aborted ceremony whose transcript the new one links. */
    readonly again: string | null;
    /** The value becomes the next version of the key of this name. */
    readonly replace: boolean;
  }): Promise<{ readonly info: CeremonyInfo; readonly invites: readonly CeremonyInviteInfo[] }>;
  /** The invites of a ceremony that this vault opened, once more: those of seats that are not taken. */
  ceremonyInvites(input: { readonly ceremony: string }): Promise<readonly CeremonyInviteInfo[]>;
  /** Reads an invite line without using it. */
  ceremonyLook(input: { readonly invite: string }): Promise<{ readonly info: CeremonyInfo; readonly index: number }>;
  /** Commits with an invite, or with the account's seat; what was drawn is in the vault before anything is sent. */
  ceremonyJoin(input: {
    readonly invite: string | null;
    /** Ceremony at the profile's server, for an account's seat. */
    readonly ceremony: string | null;
    readonly function: CeremonyFunction;
    readonly mixed: readonly MixedEntropy[];
    readonly suite: "hpke" | "rsa-oaep";
  }): Promise<CeremonyInfo>;
  /** Verifies the transcript anew and does what is this vault's to do: reveals once everything is frozen. */
  ceremonyAdvance(input: {
    readonly ceremony: string;
    /** Asked by a program that waits: it does not put the agent's idle time off. */
    readonly passive?: boolean;
  }): Promise<CeremonyInfo>;
  /** All that this vault knows of; with the profile's server, also seats that wait for the account. */
  ceremonies(): Promise<readonly CeremonyInfo[]>;
  /** How one stands; where its server is away as it was seen last, unless `fresh`. */
  ceremony(input: {
    readonly ceremony: string;
    readonly fresh?: boolean;
    readonly passive?: boolean;
  }): Promise<CeremonyInfo>;
  ceremonyClose(input: { readonly ceremony: string; readonly abort: boolean }): Promise<CeremonyInfo>;
  /** The whole transcript as a file, verified first. */
  ceremonyTranscript(input: { readonly ceremony: string }): Promise<Uint8Array>;
  /** This vault's own opening as a file: secret. The caller's to wipe. */
  ceremonyOpening(input: { readonly ceremony: string }): Promise<Uint8Array>;
  /** What this vault has in a transcript, without a server; null where it took no part. */
  ceremonyOwn(input: { readonly ceremonyId: string }): Promise<{
    readonly index: number;
    readonly publicKeyHex: string;
    readonly commitmentHex: string;
  } | null>;
  /** Takes the value out of the store where the policy allows; `pending` (exit 9) while participants must agree. */
  ceremonyCollect(input: { readonly ceremony: string }): Promise<Collected>;
  /** Agrees to a wish for the value. */
  ceremonyApprove(input: { readonly ceremony: string; readonly releaseHex: string }): Promise<CeremonyInfo>;

  /** Key with which this vault asks distribution servers where it has no account: hex. */
  otpDevice(): Promise<{ readonly keyHex: string; readonly words: readonly string[] }>;
  /** Puts a one-time password into the profile's key store; drawn there, or of a secret in the vault. */
  otpCreate(input: {
    readonly name: string;
    readonly output: Extract<OutputSpec, { kind: "totp" | "hotp" }> | null;
    /** Name of a secret of this vault. */
    readonly from: string | null;
  }): Promise<OtpEntryInfo>;
  otpEntries(): Promise<readonly OtpEntryInfo[]>;
  otpGrant(input: {
    readonly key: string;
    readonly to: OtpRequester;
    readonly wants: readonly ("code" | "provision")[];
    readonly perHour: number | null;
    readonly untilMs: number | null;
  }): Promise<OtpEntryInfo>;
  otpRevoke(input: {
    readonly key: string;
    readonly grantId: string | null;
    readonly askId: string | null;
  }): Promise<OtpEntryInfo>;
  otpHandouts(input: { readonly key: string }): Promise<readonly OtpHandoutInfo[]>;
  /** Asks for one code or the provisioning; an ask whose answer was lost is sent again as it was. */
  otpRequest(input: {
    /** Key id, or the name of a key that was granted to the account. */
    readonly key: string;
    readonly want: "code" | "provision";
    /** Null: the profile's server, with its session. */
    readonly server: OtpServer | null;
  }): Promise<OtpHanded>;
  otpCheck(input: { readonly key: string; readonly code: string; readonly next: string | null }): Promise<{
    readonly verdict: "accepted" | "used" | "expired" | "revoked" | "unknown";
    readonly handedTo: OtpRequester | null;
  }>;
  otpTokenCreate(input: { readonly key: string; readonly name: string; readonly untilMs: number }): Promise<{
    readonly tokenId: string;
    readonly token: string;
  }>;
  otpTokens(input: {
    readonly key: string;
  }): Promise<readonly { readonly tokenId: string; readonly name: string; readonly expiresAt: string }[]>;
  otpTokenRevoke(input: { readonly key: string; readonly tokenId: string }): Promise<void>;
  /** Verifies a code as a relying service does: with a token, at any server. */
  otpVerify(input: { readonly server: OtpServer; readonly token: string; readonly code: string }): Promise<{
    readonly accepted: boolean;
  }>;
  /** A sealed parcel of the key for the server with this pin, whose newest key for ceremonies is fetched and checked. */
  otpSend(input: { readonly key: string; readonly server: OtpServer }): Promise<Uint8Array>;
  /** Hands a parcel to the profile's server. */
  otpReceive(input: { readonly parcel: Uint8Array }): Promise<OtpEntryInfo>;
}
