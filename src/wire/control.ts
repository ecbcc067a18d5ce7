import { join } from "node:path";
import { Fault, isErrorCode } from "../errors.ts";
import type { FederationId, IncarnationId, KeyringId, PolicyId, UserId, WorkspaceId } from "../ids.ts";
import { CEREMONY_STATUSES, PARTICIPANTS } from "../protocol/ceremony/model.ts";
import { CREDITS_MAX } from "../protocol/keyring/ledger.ts";
import { accountName } from "./accountname.ts";
import { ceremonyId, storeName } from "./ceremony/records.ts";
import {
  bool,
  type Codec,
  decodeJson,
  encodeJson,
  hashIdOf,
  id,
  list,
  nullable,
  oneOf,
  struct,
  text,
  u53,
  uint,
} from "./codec.ts";
import { manifest, policyDocument, signedPolicy } from "./federation/records.ts";
import { credits, keyringName } from "./keyring/records.ts";
import { eventView } from "./keyring/views.ts";
import { hash32 } from "./records.ts";

function op<I, O>(input: Codec<I>, output: Codec<O>): { readonly input: Codec<I>; readonly output: Codec<O> } {
  return { input, output };
}

/** What `server rotate` replaces. */
export const ROTATIONS = ["tls", "sealing", "audit-key", "opaque", "opaque-finish", "ceremony"] as const;

/**
 * TLS for calls to one remote policy engine: names of files on the server's machine. Engines of others' policies are
 * asked only at addresses that stand in such an entry.
 */
export interface RemoteFiles {
  /** As the policy writes it. */
  readonly url: string;
  /** PEM certificates: the only authorities that may have signed the engine's. */
  readonly ca: string;
  /** PEM certificate and key that this server shows. */
  readonly cert: string;
  readonly key: string;
}

const path = text({ min: 1, max: 4_096, pattern: /^\// });
export const remoteFiles: Codec<RemoteFiles> = struct({
  url: text({ min: 9, max: 512, pattern: /^https:\/\/[^\s]+$/ }),
  ca: path,
  cert: path,
  key: path,
});

const empty = struct({});
const byAccount = struct({ account: accountName });
const ceremonyPlace = struct({ place: u53, id: ceremonyId });
const changed = struct({ account: accountName, userId: id<UserId>() });
const connector = struct({ account: accountName, userId: id<UserId>(), registry: hash32, addedAtMs: u53 });

/** Every operation of the control socket: of the machine's administrator, not of accounts (docs/operations.md). */
export const controls = {
  status: op(
    empty,
    struct({
      pid: u53,
      version: text({ min: 1, max: 64 }),
      url: text({ min: 1, max: 512 }),
      pin: text({ min: 1, max: 64 }),
      startedAtMs: u53,
      registration: oneOf(["open", "invite", "closed"]),
      engine: text({ min: 1, max: 32 }),
      incarnation: id<IncarnationId>(),
      accounts: u53,
      disabled: u53,
      sessions: u53,
      invites: u53,
      /** Requests answered since the start. */
      requests: u53,
      /** The newest key pair for ceremonies: its fingerprint, and the six words of it; null before there is one. */
      ceremonyKey: nullable(struct({ number: u53, fingerprint: hash32, words: text({ min: 1, max: 128 }) })),
    }),
  ),
  check: op(
    empty,
    struct({
      ok: bool,
      /** How many things were checked: `items` lists what is no account, and the accounts that do not hold. */
      checks: u53,
      items: list(struct({ name: text({ min: 1, max: 128 }), ok: bool, detail: nullable(text({ max: 1_024 })) }), {
        max: 10_000,
      }),
    }),
  ),
  /** Copies the database, as of one moment, into a new file of the server's user. */
  backup: op(struct({ path: text({ min: 1, max: 4_096 }) }), struct({ bytes: u53, accounts: u53 })),
  /**
   * Replaces a key; `remaining` are the accounts that still need the OPAQUE set-up before; of `ceremony` the key pairs
   * before that are still kept.
   */
  rotate: op(
    struct({ key: oneOf(ROTATIONS), force: bool }),
    struct({ key: oneOf(ROTATIONS), restart: bool, remaining: u53 }),
  ),
  /** `expiresMs` from now; null: seven days. The code is shown once and not stored. */
  "invite.create": op(
    struct({ expiresMs: nullable(u53) }),
    struct({ code: text({ min: 1, max: 64 }), hint: text({ max: 64 }), expiresAtMs: u53 }),
  ),
  "invite.list": op(
    empty,
    struct({
      items: list(
        struct({
          /** First characters of the code. */
          hint: text({ max: 64 }),
          createdAtMs: u53,
          expiresAtMs: u53,
          state: oneOf(["open", "used", "expired", "void"]),
        }),
        { max: 100_000 },
      ),
    }),
  ),
  /** By the whole code or by its first characters, when they name one invite. */
  "invite.revoke": op(struct({ code: text({ min: 1, max: 64 }) }), struct({ revoked: u53 })),
  "user.list": op(
    struct({ after: nullable(id<UserId>()) }),
    struct({
      items: list(
        struct({
          account: accountName,
          userId: id<UserId>(),
          createdAtMs: u53,
          disabled: bool,
          sessions: u53,
          devices: u53,
        }),
        { max: 1_000 },
      ),
      next: nullable(id<UserId>()),
    }),
  ),
  /** Ceremonies that are open, what is due first at the front; or those that are over, the oldest first. */
  "ceremony.list": op(
    struct({ over: bool, after: nullable(ceremonyPlace) }),
    struct({
      items: list(
        struct({
          ceremonyId,
          name: storeName,
          /** Account that opened it. */
          organiser: accountName,
          /** As of its newest entry; time alone may have ended the stage since. */
          status: oneOf(CEREMONY_STATUSES),
          untilMs: nullable(u53),
          openedAtMs: u53,
          seats: uint(PARTICIPANTS.max),
          /** Of them, who has committed. */
          taken: uint(PARTICIPANTS.max),
        }),
        { max: 64 },
      ),
      next: nullable(ceremonyPlace),
    }),
  ),
  /** Drafts that wait for this operator, and the federations that this server belongs to or has left. */
  "federation.list": op(
    empty,
    struct({
      items: list(
        struct({
          manifest,
          state: oneOf(["waiting", "accepted", "member", "left"]),
          /** Of a draft. */
          expiresAtMs: nullable(u53),
          /** Index of this server; null where the manifest does not name it. */
          index: nullable(uint(255, 1)),
        }),
        { max: 64 },
      ),
    }),
  ),
  /** Lets the enclave sign a draft: the very one that the operator has seen. */
  "federation.accept": op(
    struct({ federationId: hashIdOf<FederationId>(), epoch: uint(0xffff_ffff, 1), hash: hash32 }),
    struct({ state: oneOf(["accepted", "member"]) }),
  ),
  /** Drops a draft, or ends the membership: shares stay where they are and serve no request. */
  "federation.leave": op(struct({ federationId: hashIdOf<FederationId>() }), struct({ drafts: u53, left: bool })),
  "policy.show": op(
    empty,
    struct({
      /** The operator's policy: id, newest link and TLS files of the engines that it asks. */
      policyId: nullable(hashIdOf<PolicyId>()),
      policy: nullable(signedPolicy),
      remotes: list(remoteFiles, { max: 64 }),
      /** Server's key under the name that policies call it by. */
      operator: hash32,
    }),
  ),
  /** A new link of the operator's policy, or none any more, so that the owner's word is enough; null keeps what is. */
  "policy.set": op(
    struct({
      document: nullable(policyDocument),
      drop: bool,
      remotes: nullable(list(remoteFiles, { max: 64 })),
    }),
    struct({ policyId: nullable(hashIdOf<PolicyId>()), version: u53 }),
  ),
  /** Lets an account act for a registry: what goes through its keyrings, and nothing else. */
  "connector.allow": op(struct({ account: accountName, registry: hash32 }), connector),
  "connector.list": op(empty, struct({ items: list(connector, { max: 64 }) })),
  /** Of one registry, or of all. */
  "connector.revoke": op(
    struct({ account: accountName, registry: nullable(hash32) }),
    struct({ account: accountName, userId: id<UserId>(), revoked: u53 }),
  ),
  /** The operator gives a workspace credits (docs/protocol.md §9.5). */
  "registry.credit": op(
    struct({ workspaceId: hashIdOf<WorkspaceId>(), amount: credits, note: text({ max: 256 }) }),
    struct({ balance: credits }),
  ),
  /** Every account of the ledger that is not at zero, and whether all entries, added up again, say the same. */
  "registry.balances": op(
    empty,
    struct({
      items: list(
        struct({
          /** `operator`, `workspace:ID`, `escrow:REQUEST` or `party:KEYRING:NAME`. */
          account: text({ min: 1, max: 160 }),
          /** Of the operator, who has issued them, not positive: all together are zero. */
          balance: uint(CREDITS_MAX, -CREDITS_MAX),
        }),
        { max: 100_000 },
      ),
      /** Entries of the ledger. */
      entries: u53,
      sound: bool,
      /** What is wrong, in words. */
      problems: list(text({ max: 512 }), { max: 16 }),
    }),
  ),
  /** Notes that a party was paid for its credits, which are gone with that. */
  "registry.payout": op(
    struct({
      keyringId: hashIdOf<KeyringId>(),
      party: keyringName,
      amount: credits,
      note: text({ max: 256 }),
    }),
    struct({ balance: credits }),
  ),
  /** Events of all workspaces and keyrings after a number, in their order. */
  "registry.events": op(struct({ after: u53 }), struct({ items: list(eventView, { max: 64 }), more: bool })),
  "user.disable": op(byAccount, changed),
  "user.enable": op(byAccount, changed),
  "user.remove": op(byAccount, changed),
  /** Takes an account's second factor off, for an owner who has lost it with the recovery codes. */
  "user.factor-reset": op(byAccount, changed),
} as const satisfies Record<string, { input: Codec<never> | Codec<unknown>; output: Codec<never> | Codec<unknown> }>;

export type ControlName = keyof typeof controls;
export type ControlInput<N extends ControlName> = (typeof controls)[N]["input"] extends Codec<infer T> ? T : never;
export type ControlOutput<N extends ControlName> = (typeof controls)[N]["output"] extends Codec<infer T> ? T : never;

/** True for a name in the table. */
export function isControl(name: string): name is ControlName {
  return Object.hasOwn(controls, name);
}

/** Path of control requests; the name follows. */
export const CONTROL_PATH = "/v1/control/";

/** A refusal: both ends belong to the administrator, so that reason and remedy come along. */
export const controlError = struct({
  code: text({ max: 64 }),
  message: text({ max: 4_096 }),
  why: nullable(text({ max: 65_536 })),
  hint: nullable(text({ max: 4_096 })),
  retryAfterMs: nullable(u53),
});

/** The control socket of a server directory. */
export function controlSocketPath(dir: string): string {
  return join(dir, "control.sock");
}

const REPLY_MAX = 32 * 1_024 * 1_024;

/** A codec pair of the table, seen from a name that is only known at run time. */
function codecsOf<N extends ControlName>(
  name: N,
): { readonly input: Codec<ControlInput<N>>; readonly output: Codec<ControlOutput<N>> } {
  return controls[name] as unknown as { input: Codec<ControlInput<N>>; output: Codec<ControlOutput<N>> };
}

/** Work that grows with the database; everything else is answered at once. */
const LONG: ReadonlySet<ControlName> = new Set(["check", "backup", "rotate", "registry.balances"]);
const patience = (name: ControlName): number => (LONG.has(name) ? 24 * 3_600_000 : 15_000);

/**
 * Asks the server that runs on a directory of this machine.
 *
 * @param timeoutMs Default 15 s; a day for what goes through a whole database.
 * @throws Fault unreachable when no server runs there, timed_out when one does and stands still; the server's own
 *   faults; integrity for a malformed answer.
 */
export async function callControl<N extends ControlName>(
  dir: string,
  name: N,
  input: ControlInput<N>,
  timeoutMs = patience(name),
): Promise<ControlOutput<N>> {
  const codecs = codecsOf(name);
  let status: number;
  let body: Uint8Array;
  try {
    const response = await fetch(`http://localhost${CONTROL_PATH}${name}`, {
      method: "POST",
      unix: controlSocketPath(dir),
      body: encodeJson(codecs.input, input),
      headers: { "content-type": "application/json" },
      redirect: "manual",
      verbose: false,
      // Bun's own limit of five minutes without a byte is shorter than a check may take
      timeout: false,
      signal: AbortSignal.timeout(timeoutMs),
    });
    status = response.status;
    body = await response.bytes();
  } catch (error) {
    if (error instanceof DOMException && error.name === "TimeoutError") {
      throw new Fault("timed_out", `the server on ${JSON.stringify(dir)} runs, but does not answer`, {
        hint: "look at its log and the machine's load, then restart it",
      });
    }
    throw new Fault("unreachable", `no server answers on ${JSON.stringify(controlSocketPath(dir))}`, {
      hint: "is `keyhold serve` running with this --dir?",
    });
  }
  if (body.length > REPLY_MAX) throw new Fault("integrity", "the server's answer is too long");
  try {
    if (status === 200) return decodeJson(codecs.output, body);
  } catch {
    throw new Fault("integrity", "the server's answer is malformed");
  }
  throw errorOf(body);
}

function errorOf(body: Uint8Array): Fault {
  try {
    const { code, message, why, hint, retryAfterMs } = decodeJson(controlError, body);
    if (isErrorCode(code)) {
      return new Fault(code, message, {
        ...(why !== null && { why }),
        ...(hint !== null && { hint }),
        ...(retryAfterMs !== null && { retryAfterMs }),
      });
    }
  } catch {
    // falls through
  }
  return new Fault("integrity", "the server's answer is malformed");
}
