import { equalBytes, wipe, ZERO_HASH_BYTES } from "../../crypto/bytes.ts";
import { signerFromSeed } from "../../crypto/identity.ts";
import { Fault } from "../../errors.ts";
import type { DeviceId, FederationId, UserId } from "../../ids.ts";
import { wrapAccountKey } from "../../protocol/account.ts";
import {
  approvalSigner,
  deviceSeed,
  deviceToken,
  identitySeed,
  memberName,
  opaqueSecret,
  requestSigner,
} from "../../protocol/federation/credentials.ts";
import { signEnrolment } from "../../protocol/federation/enrolment.ts";
import type { FederationServer } from "../../protocol/federation/manifest.ts";
import { stateHash } from "../../protocol/state.ts";
import { takePromise } from "../checkpoint.ts";
import { commitSettings } from "../commit.ts";
import { type connect, type LoggedIn, logIn } from "../login.ts";
import { NO_LOG } from "../logpin.ts";
import { bind, boundOf, type Model, newModel, type Surroundings } from "../model.ts";
import { startOpaque } from "../opaque.ts";
import { type NewDevice, prepareRegistration } from "../register.ts";
import { registerPassword } from "../reregister.ts";
import type { Link, Session } from "../session.ts";
import { checkHead } from "../sync.ts";
import { NO_VAULT } from "../vaultbox.ts";
import type { HeldServer } from "./held.ts";

/** Where an account is opened: a server of a federation, or a registry, whose index is 0. */
export type MemberPlace = Pick<FederationServer, "index" | "url" | "pin">;

/** An open session with one server of a federation. */
export interface Membership<P extends MemberPlace = FederationServer> {
  readonly server: P;
  readonly link: Link;
  readonly session: Session;
  /** The account there as it is pinned: it holds no secret. */
  readonly model: Model;
  /** What the vault is to keep of the server. */
  readonly held: HeldServer;
}

/** What a membership is opened with. */
export interface MembershipInput<P extends MemberPlace = FederationServer> {
  readonly secret: Uint8Array;
  /** Or the scope that stands in its place at a registry. */
  readonly federationId: FederationId;
  readonly server: P;
  readonly held: HeldServer;
  /** For a server that lets in whoever brings an invite. */
  readonly invite: string | null;
  readonly reach: typeof connect;
  readonly around: Surroundings;
  /** Ties keys to the account, once; by default request and approval key of the federation. */
  readonly enrol?: (session: Session, userId: UserId) => Promise<void>;
}

/** Everything of the account at one server that F gives; `password` is text, as OPAQUE takes it. */
function credentialsOf(secret: Uint8Array, id: FederationId, index: number) {
  const seed = deviceSeed(secret, id, index);
  const raw = opaqueSecret(secret, id, index);
  try {
    const { publicKey } = signerFromSeed(seed);
    const device: NewDevice = {
      id: publicKey.subarray(0, 16).toHex() as DeviceId,
      seed,
      token: deviceToken(secret, id, index),
      name: "federation",
    };
    const password = new TextEncoder().encode(raw.toHex());
    return { account: memberName(secret, id), device, password, identitySeed: identitySeed(secret, id, index) };
  } finally {
    wipe(raw);
  }
}

/**
 * Opens a session with one server of a federation: registers on first use, logs in with credentials that only F gives,
 * and ties request and approval key to the account (docs/protocol.md §8.2).
 *
 * @throws Fault unreachable and the like where the server is away; denied where it takes no new accounts; integrity
 */
export async function openMembership<P extends MemberPlace>(input: MembershipInput<P>): Promise<Membership<P>> {
  const { secret, federationId, server, held, invite, reach, around } = input;
  const { url, pin } = server;
  const known = { url, pin, caPem: held.caPem, tlsCaPem: null, statementNumber: held.statementNumber };
  const { link, server: found } = await reach(known, around);
  const mine = credentialsOf(secret, federationId, server.index);
  const how = { url, kdf: "federation", deviceToken: mine.device.token } as const;
  const register = async (): Promise<void> => {
    const { finish } = await prepareRegistration(link, how, { ...mine, invite }, mine.password, around);
    await finish();
  };
  // this account is nobody's to prove: its password is 256 random bits, and its owner is not there to be asked
  const { factor: _, ...alone } = around;
  const enter = () => logIn(link, how, mine.account, mine.password, alone);
  try {
    let fresh = false;
    let done: LoggedIn;
    if (held.userId === null) {
      fresh = await register().then(
        () => true,
        // another device of the owner was here, or this one before it was killed
        (error: unknown) => (isFault(error, "exists") ? false : raise(error)),
      );
      done = await enter().catch((error: unknown) => raise(isFault(error, "login_failed") ? stranger() : error));
    } else {
      // a server that lost everything takes its owner in anew
      const anew = async () => {
        fresh = true;
        await register();
        return enter();
      };
      done = await enter().catch((error: unknown) => (isFault(error, "login_failed") ? anew() : raise(error)));
    }
    wipe(done.exportKey);
    const model = modelOf(link, done, mine, held, around);
    const { session } = done;
    checkHead(model, headOf(done));
    session.onHead = async (head, beside) => {
      checkHead(model, head);
      await takePromise(model, session, head, beside, around.now());
    };
    await underNewestSetup(input, { link, done, model }, mine.password);
    const enrolled = held.enrolled && !fresh && held.userId === done.userId;
    if (!enrolled)
      await (input.enrol ?? ((opened: Session, userId: UserId) => enrol(opened, input, userId)))(session, done.userId);
    const { caPem, statementNumber } = found;
    const same = held.userId === null || held.userId === done.userId;
    if (!same) around.notice(`server ${server.index} (${url}) has lost this account, and takes it in anew`);
    const seen = same ? held : { ...held, verified: { seq: 0, link: ZERO_HASH_BYTES, revision: 0 }, log: NO_LOG };
    const now: HeldServer = { ...seen, userId: done.userId, enrolled: true, caPem, statementNumber };
    return { server, link, session, model, held: now };
  } finally {
    wipe(mine.password, mine.identitySeed);
  }
}

const raise = (error: unknown): never => {
  throw error;
};
const isFault = (error: unknown, code: Fault["code"]): boolean => error instanceof Fault && error.code === code;
const stranger = () =>
  new Fault("integrity", "the server shows another account where the owner's must be", {
    why: "nobody who does not have the federation secret can know that name",
  });

const headOf = ({ reply }: LoggedIn) => {
  const { state } = reply.head;
  return {
    revision: state.revision,
    stateHash: stateHash(state),
    auditSeq: reply.auditSeq,
    auditLink: reply.auditLink,
  };
};

function modelOf(
  link: Link,
  done: LoggedIn,
  mine: ReturnType<typeof credentialsOf>,
  held: HeldServer,
  around: Surroundings,
): Model {
  const { reply, userId, accountKey } = done;
  if (!equalBytes(reply.settings.identity, signerFromSeed(mine.identitySeed).publicKey)) throw stranger();
  const bound = bind(
    {
      account: mine.account,
      userId,
      deviceId: mine.device.id,
      deviceSeed: mine.device.seed,
      serverIdentity: link.identity,
      statementNumber: link.statementNumber,
      head: reply.head,
      settings: reply.settings,
      audit: { seq: reply.auditSeq, link: reply.auditLink },
    },
    around.now(),
  );
  bound.incarnation = link.statement.incarnation;
  // of an account that had to be made anew nothing was seen before
  if (held.userId === userId) {
    bound.log = held.log;
    bound.verified = held.verified;
    if (reply.auditSeq < held.verified.seq) {
      throw new Fault("integrity", "the server's log of this account was cut", {
        why: `it ended at entry ${held.verified.seq}, and now at ${reply.auditSeq}`,
      });
    }
  }
  return newModel(userId, accountKey, bound);
}

/** What keeps the account under the set-up before until the next login. */
const LATER: ReadonlySet<string> = new Set([
  "conflict",
  "stale",
  "rate_limited",
  "denied",
  "unavailable",
  "unreachable",
]);

/** After a login under the server's OPAQUE set-up before the newest: the same secret under the newest (§3.5). */
async function underNewestSetup(
  { around, server }: Pick<MembershipInput<MemberPlace>, "around" | "server">,
  { link, done, model }: { link: Link; done: LoggedIn; model: Model },
  password: Uint8Array,
): Promise<void> {
  if (done.setup === 0 || link.opaqueKeys.length < 2) return;
  const { session } = done;
  const exchange = await startOpaque("register", password);
  try {
    const profile = { server: { url: server.url }, kdf: "federation", account: boundOf(model).account } as const;
    const { record, exportKey } = await registerPassword(profile, { session, link }, exchange);
    try {
      await commitSettings(model, NO_VAULT, session, around, "account.reregister", (before, revision) => ({
        record,
        settings: { ...before, ...wrapAccountKey(exportKey, model.owner, revision, model.accountKey, around.random) },
      }));
    } finally {
      wipe(exportKey);
    }
  } catch (error) {
    if (!(error instanceof Fault) || !LATER.has(error.code)) throw error;
  } finally {
    exchange.end();
  }
}

async function enrol(session: Session, input: MembershipInput<MemberPlace>, userId: UserId): Promise<void> {
  const { secret, federationId } = input;
  const request = requestSigner(secret, federationId);
  const approval = approvalSigner(secret, federationId);
  const facts = { federationId, server: input.server.index, userId };
  await session.call("federation.enrol", {
    federationId,
    requestKey: request.publicKey,
    requestProof: signEnrolment(request, { ...facts, role: "request" }),
    approvalKey: approval.publicKey,
    approvalProof: signEnrolment(approval, { ...facts, role: "approval" }),
  });
}
