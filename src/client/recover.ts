import { hostname } from "node:os";
import { equalBytes, wipe } from "../crypto/bytes.ts";
import { hpkeOpen } from "../crypto/hpke.ts";
import { signerFromSeed } from "../crypto/identity.ts";
import { Fault } from "../errors.ts";
import { newId, type RequestId, type SessionId } from "../ids.ts";
import { accountKeys, wrapAccountKey } from "../protocol/account.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { kitEntropy, kitKeys, openWithKit, recoveryChallenge, recoveryReplyInfo } from "../protocol/kit.ts";
import { type Settings, settingsHash, signState, stateHash, stateSignaturesHold } from "../protocol/state.ts";
import { type InputOf, recoverReply, requestHash } from "../wire/operations.ts";
import { decodeReply } from "../wire/transport.ts";
import { type KnownBefore, loginNewDevice, profileServer, refuseExisting } from "./enrol.ts";
import type { AccountInput, Home, LoggedInClient } from "./home.ts";
import { acceptedCosts, callClear, connect, finishOpaque } from "./login.ts";
import { identityOf, pauseIn, type Surroundings } from "./model.ts";
import { accountNameOf } from "./names.ts";
import { startOpaque } from "./opaque.ts";
import { asProfileName } from "./profile.ts";
import { deviceEntry, type NewDevice, newDevice } from "./register.ts";
import type { Link } from "./session.ts";

/** A recovery: `password` is the new one. */
export interface RecoverInput extends AccountInput {
  /** The 24 words as they were typed. */
  readonly words: string;
  readonly known: Pick<KnownBefore, "userId" | "anchor">;
}

/** Another device's change came between; each try begins with a new challenge. */
const TRIES = 3;

/**
 * Gives an account a new password with its recovery kit, then sets this home up as a device of it
 * (docs/protocol.md §5.8). All sessions are closed; the old password is dead.
 *
 * @throws Fault bad_input for words that are none, login_failed, integrity, exists, unreachable
 */
export async function recoverAccount(
  home: Home,
  input: RecoverInput,
  around: Surroundings,
): Promise<LoggedInClient & { readonly recovered: RequestId }> {
  const account = accountNameOf(input.account);
  // before anything happens on the server
  refuseExisting(home, asProfileName(input.profile));
  const entropy = kitEntropy(input.words);
  try {
    const { link } = await connect(profileServer(input.server), around);
    const device = newDevice(hostname(), around);
    for (let attempt = 1; ; attempt++) {
      try {
        const recovered = await recoverOnce(link, { ...input, account }, entropy, device, around);
        const done = await loginNewDevice(home, { ...input, account }, around, {
          ...input.known,
          device,
          kit: await kitKeys(entropy),
        });
        return { ...done, recovered };
      } catch (error) {
        if (!(error instanceof Fault) || error.code !== "stale" || attempt === TRIES) throw error;
      }
    }
  } finally {
    wipe(entropy);
  }
}

async function recoverOnce(
  link: Link,
  input: RecoverInput,
  entropy: Uint8Array,
  device: NewDevice,
  around: Surroundings,
): Promise<RequestId> {
  const kit = await kitKeys(entropy);
  const { account } = input;
  const { sessionId, challenge } = await callClear(link, "account.recover.start", { account });
  const exchange = await startOpaque("register", input.password);
  try {
    const signature = kit.signer.sign(recoveryChallenge(link.identity, sessionId, account, challenge));
    const proof = { sessionId, signature, request: exchange.request };
    const { sealed } = await callClear(link, "account.recover.prove", proof);
    const plain = await hpkeOpen(kit.hpke, recoveryReplyInfo(link.identity, sessionId, account), sealed);
    const shown = decodeReply(recoverReply, plain);
    const made = await finishOpaque(
      exchange,
      account,
      [shown.response],
      acceptedCosts([shown.ksf], input.server.url, input.kdf),
    );
    if (!made?.record) throw new Fault("internal", "the new password was refused locally");
    const expected = link.opaqueKeys[0];
    if (!expected || !equalBytes(expected, made.serverKey)) {
      throw new Fault("integrity", "the server registers with another OPAQUE key than its identity signed");
    }
    const { userId, settings, head } = shown;
    const { state } = head;
    const wanted = input.known.userId ?? userId;
    const sound =
      userId === wanted &&
      state.userId === userId &&
      shown.incarnation === link.statement.incarnation &&
      equalBytes(state.settingsHash, settingsHash(settings)) &&
      stateSignaturesHold(head, settings) &&
      notBefore(input, state.revision, stateHash(state));
    if (!sound) throw new Fault("integrity", "the server shows another account than the kit's, or an older one");
    const accountKey = await openWithKit(kit, userId, settings);
    try {
      return await commit(link, { shown, accountKey, record: made.record, exportKey: made.exportKey }, sessionId);
    } finally {
      wipe(accountKey, made.exportKey);
    }
  } finally {
    exchange.end();
  }

  async function commit(
    to: Link,
    got: {
      shown: ReturnType<typeof recoverReply.decode>;
      accountKey: Uint8Array;
      record: Uint8Array;
      exportKey: Uint8Array;
    },
    session: SessionId,
  ): Promise<RequestId> {
    const { userId, settings, head, incarnation, auditSeq } = got.shown;
    const keys = accountKeys(got.accountKey, userId);
    const identity = identityOf(keys, userId, settings);
    const requestId = newId<RequestId>(around.random);
    const revision = head.state.revision + 1;
    const next: Settings = {
      ...settings,
      ...wrapAccountKey(got.exportKey, userId, revision, got.accountKey, around.random),
      devices: [...settings.devices, deviceEntry({ keys, owner: userId }, device, around)],
    };
    const body = { requestId, sessionId: session, record: got.record, settings: next };
    const state = {
      ...head.state,
      incarnation,
      deviceId: device.id,
      revision,
      previous: stateHash(head.state),
      requestId,
      requestHash: requestHash("account.recover", { ...body, state: head }),
      settingsHash: settingsHash(next),
      // nothing of the log is verified on this machine yet
      auditSeq: Math.min(head.state.auditSeq, auditSeq),
    };
    const signed = signState(state, identity, signerFromSeed(device.seed));
    const receipt = await insist(to, { ...body, state: signed }, around);
    if (
      receipt.revision < revision ||
      (receipt.revision === revision && !equalBytes(receipt.stateHash, stateHash(state)))
    ) {
      throw new Fault("integrity", "the server acknowledged another change than the one that was sent");
    }
    return requestId;
  }
}

/** The server may have done it already: the same request again gets its answer. */
const AGAIN: ReadonlySet<string> = new Set(["unreachable", "timed_out", "unavailable"]);

async function insist(link: Link, input: InputOf<"account.recover">, around: Surroundings) {
  const giveUpAt = around.now() + DEFAULTS.retryForMs;
  for (let waitMs = 200; ; waitMs *= 2) {
    try {
      return await callClear(link, "account.recover", input);
    } catch (error) {
      if (!(error instanceof Fault) || !AGAIN.has(error.code)) throw error;
      if (around.now() + waitMs >= giveUpAt) throw lostReply(error);
      await pauseIn(around, waitMs);
    }
  }
}

const lostReply = (fault: Fault): Fault =>
  new Fault("outcome_unknown", "the server did not say whether the account was recovered", {
    why: fault.message,
    hint: "log in with the new password, or recover again with the same kit",
  });

/** False for an account older than the position that the kit names, or another one at it. */
function notBefore({ known }: RecoverInput, revision: number, hash: Uint8Array): boolean {
  const { anchor } = known;
  if (!anchor) return true;
  return revision > anchor.revision || (revision === anchor.revision && equalBytes(hash, anchor.stateHash));
}
