import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { openDeviceName } from "../protocol/account.ts";
import { closeVault } from "../protocol/vault.ts";
import type { ConflictInfo, KeyholdClient, Status } from "./api.ts";
import { exportAudit } from "./auditfile.ts";
import { verifyAudit } from "./auditing.ts";
import { listAudit } from "./auditlist.ts";
import { RECEIPTS_MAX } from "./body.ts";
import type { CeremonyPart } from "./ceremony/index.ts";
import type { FederationPart } from "./federation/index.ts";
import type { FederationClient } from "./federationapi.ts";
import type { createFiles } from "./fileparts.ts";
import { importItems } from "./importing.ts";
import type { KeyringClient } from "./keyringapi.ts";
import { listSecrets } from "./listing.ts";
import { type Open, online, save } from "./opened.ts";
import { secretOtp } from "./otp.ts";
import { viewOf } from "./overlay.ts";
import { type Conflict, openConflicts } from "./queue.ts";
import { getManySecrets, getSecret, historyOf, syncedAt } from "./reading.ts";
import { resumeRewrapping } from "./rewrapping.ts";
import { signSecret } from "./signing.ts";
import { synchronise } from "./sync.ts";
import { refresh } from "./vaultbox.ts";
import { readPending } from "./vaultfile.ts";
import { generateSecret, renameSecret, restoreSecret, storeSecret, tagSecret } from "./writing.ts";

const conflictInfo = ({ newest: _, atMs, ...conflict }: Conflict): ConflictInfo => ({
  ...conflict,
  at: new Date(atMs).toISOString(),
});

/** Failures of the server's absence, which must not fail what was done before it. */
const AWAY: ReadonlySet<string> = new Set([
  "unreachable",
  "timed_out",
  "unavailable",
  "outcome_unknown",
  "session_invalid",
]);

async function whenReachable(work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Fault) || !AWAY.has(error.code)) throw error;
  }
}

/** What `status` says beside the client's own knowledge. */
export interface Place {
  readonly profile: string;
  readonly server: { readonly url: string; readonly pin: string } | null;
}

/**
 * The client API over an open vault and session (docs/client.md). Calls run one after another: each sees what the
 * one before did.
 *
 * @param end Runs once at `close`, after everything else.
 */
export function createClient(open: Open, place: Place, end: () => Promise<void>): KeyholdClient {
  let tail: Promise<unknown> = Promise.resolve();
  let closing: Promise<void> | null = null;
  let fileCalls: ReturnType<typeof createFiles> | null = null;
  let federationPart: Promise<FederationPart> | null = null;
  let keyringPart: Promise<KeyringClient> | null = null;
  let ceremonyPart: Promise<CeremonyPart> | null = null;

  const factor = async () => (await import("./factor.ts")).factorCalls(open);

  async function files(): Promise<ReturnType<typeof createFiles>> {
    if (fileCalls === null) fileCalls = (await import("./fileparts.ts")).createFiles(open);
    return fileCalls;
  }

  /** Work with federations, which are loaded when they are needed. */
  function federated<T>(work: (calls: FederationClient) => Promise<T>): Promise<T> {
    return queued(async () => {
      federationPart ??= import("./federation/index.ts").then(({ createFederationClient }) =>
        createFederationClient(open),
      );
      return work((await federationPart).calls);
    });
  }

  /** Work with the server as a registry of keyrings, loaded likewise. */
  function registered<T>(work: (calls: KeyringClient) => Promise<T>): Promise<T> {
    return queued(async () => {
      keyringPart ??= import("./keyring/index.ts").then(({ createKeyringClient }) =>
        createKeyringClient(open, place.server?.url ?? ""),
      );
      return work(await keyringPart);
    });
  }

  /** Work with ceremonies and one-time codes, loaded likewise. */
  function atCeremonies<T>(work: (calls: CeremonyPart["calls"]) => Promise<T>): Promise<T> {
    return queued(async () => {
      ceremonyPart ??= import("./ceremony/index.ts").then(({ createCeremonyClient }) =>
        createCeremonyClient(open, place.server),
      );
      return work((await ceremonyPart).calls);
    });
  }

  function inTurn<T>(run: () => Promise<T>): Promise<T> {
    if (closing !== null) return Promise.reject(new Fault("locked", "this client was closed"));
    const next = tail.then(run, run);
    tail = next.catch(() => undefined);
    return next;
  }

  function queued<T>(work: () => Promise<T>): Promise<T> {
    return inTurn(async () => {
      const done = await work();
      if (open.session !== null && open.box.model.bound?.rewrapping) await resumeRewrapping(open);
      if ((open.box.model.bound?.receipts.length ?? 0) >= RECEIPTS_MAX / 2)
        await whenReachable(() => verifyAudit(open));
      await keepForKit();
      return done;
    });
  }

  /** What the recovery kit is to open of federations follows what changed here, or on the account. */
  async function keepForKit(): Promise<void> {
    const { session: at, box } = open;
    if (at === null || box.model.held.federationSecret === null || !box.model.bound?.settings.kit || at.away()) return;
    await (await import("./federation/parcel.ts")).keepParcelToo(open, at);
  }

  /** Log positions that only this process has seen go to disk, so that the next one holds the server to them. */
  async function keepReceipts(): Promise<void> {
    if (open.session === null || !open.box.model.unsaved) return;
    try {
      await save(open, () => undefined);
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      open.around.notice(`the positions of the log that were seen could not be kept: ${error.message}`);
    }
  }

  function session() {
    if (open.session) return open.session;
    throw new Fault(
      place.server ? "unreachable" : "bad_input",
      place.server ? "the server is away" : "this profile has no server",
    );
  }

  async function status(): Promise<Status> {
    refresh(open.box);
    const { model } = open.box;
    const { bound } = model;
    let valid = false;
    let reachable = false;
    if (open.session && bound) {
      try {
        await open.session.call("session.check", {});
        valid = true;
        reachable = true;
      } catch (error) {
        if (!(error instanceof Fault)) throw error;
        reachable = error.code === "session_invalid";
        if (error.code === "integrity") throw error;
      }
    }
    const live = [...viewOf(model).secrets.values()].filter(
      ({ leaf, meta }) => leaf.status === "live" && meta?.type !== "part",
    ).length;
    return {
      profile: place.profile,
      server: place.server ? { ...place.server, reachable } : null,
      account: bound ? { name: bound.account, userId: bound.userId } : null,
      session: open.session
        ? { id: open.session.sessionId, expiresAt: new Date(open.session.expiresAtMs).toISOString(), valid }
        : null,
      vault: { path: open.box.path, secrets: live, locked: false },
      sync: bound
        ? {
            revision: bound.head.state.revision,
            syncedAt: syncedAt(open),
            pending: readPending(open.box.path) !== null,
            rewrapping: bound.rewrapping !== null,
            queued: model.queue.length,
            conflicts: openConflicts(model).map(conflictInfo),
          }
        : null,
      auditHead: bound ? { seq: bound.witnessed.seq, linkHex: bound.witnessed.link.toHex() } : null,
    };
  }

  return {
    generate: (input) => queued(() => generateSecret(open, input)),
    store: (input) => queued(() => storeSecret(open, input)),
    get: (input) =>
      queued(async () => {
        const got = await getSecret(open, input);
        if (input.save && got.size !== undefined) await (await files()).keep(got.info.keyId);
        return got;
      }),
    otp: (input) => queued(() => secretOtp(open, input)),
    getMany: (input) => queued(() => getManySecrets(open, input)),
    sign: (input) => queued(() => signSecret(open, input)),
    unwrapFileKey: (input) => queued(async () => (await import("./filekey.ts")).unwrapFileKey(open, input)),
    list: (input) => queued(() => listSecrets(open, input)),
    history: (input) => queued(() => historyOf(open, input)),
    restore: (input) => queued(() => restoreSecret(open, input)),
    rename: (input) => queued(() => renameSecret(open, input)),
    tag: (input) => queued(() => tagSecret(open, input)),
    remove: (input) => queued(async () => (await import("./partsweep.ts")).removeWithParts(open, input)),
    importItems: (input) => queued(() => importItems(open, input)),
    fileBegin: (input) => queued(async () => (await files()).fileBegin(input)),
    fileAppend: (input) => queued(async () => (await files()).fileAppend(input)),
    fileFinish: (input) => queued(async () => (await files()).fileFinish(input)),
    fileAbort: (input) => queued(async () => (await files()).fileAbort(input)),
    fileOpen: (input) => queued(async () => (await files()).fileOpen(input)),
    fileRead: (input) => queued(async () => (await files()).fileRead(input)),
    report: (input) => queued(async () => (await import("./report.ts")).reportOn(open, input)),
    auditList: (input) => queued(() => listAudit(open, input)),
    auditVerify: () => queued(() => verifyAudit(open)),
    auditExport: (input) => queued(() => exportAudit(open, input.cursor)),
    sessions: () =>
      queued(() =>
        online(open, true, async () => {
          const { output, requestId } = await session().call("session.list", {});
          const items = output.items.map((row) => ({
            sessionId: row.sessionId,
            createdAt: new Date(row.createdAtMs).toISOString(),
            lastUsedAt: new Date(row.lastUsedMs).toISOString(),
            expiresAt: new Date(row.expiresAtMs).toISOString(),
            current: row.current,
          }));
          return { items, requestId };
        }),
      ),
    // after the end of its own session nothing can follow in it
    closeSession: (input) =>
      (input.sessionId === null || input.sessionId === open.session?.sessionId ? inTurn : queued)(() =>
        online(open, true, async () => {
          const { output, requestId } = await session().call("session.close", input);
          return { closed: output.closed, requestId };
        }),
      ),
    devices: () =>
      queued(async () => {
        const { model } = open.box;
        const { bound } = model;
        const items = (bound?.settings.devices ?? []).map((device) => ({
          deviceId: device.id,
          name: openDeviceName(model.keys, model.owner, device.id, device.name),
          addedAt: new Date(device.addedAtMs).toISOString(),
          current: device.id === bound?.deviceId,
        }));
        return { items };
      }),
    linkDevice: () =>
      queued(() => {
        if (!place.server) throw new Fault("bad_input", "this profile has no server");
        const { server } = place;
        return import("./link.ts").then(({ linkDevice }) => linkDevice(open, server));
      }),
    factor: () => queued(async () => (await factor()).factor()),
    enableFactor: (input) => queued(async () => (await factor()).enableFactor(input)),
    renewFactorCodes: (input) => queued(async () => (await factor()).renewFactorCodes(input)),
    disableFactor: (input) => queued(async () => (await factor()).disableFactor(input)),
    sync: () =>
      queued(() =>
        online(open, true, async (at) => {
          const { changed, answer } = await synchronise(open.box.model, session(), open.around);
          await save(open);
          await (await import("./partsweep.ts")).sweepParts(open);
          return {
            revision: open.box.model.bound?.head.state.revision ?? 0,
            changed,
            sent: at?.merged.sent ?? 0,
            conflicts: openConflicts(open.box.model).length,
            requestId: answer.requestId,
          };
        }),
      ),
    keepCopies: () => queued(async () => (await import("./copies.ts")).keepCopies(open)),
    federations: () => federated((calls) => calls.federations()),
    createFederation: (input) => federated((calls) => calls.createFederation(input)),
    joinFederation: (input) => federated((calls) => calls.joinFederation(input)),
    checkFederation: (input) => federated((calls) => calls.checkFederation(input)),
    federatedKeys: () => federated((calls) => calls.federatedKeys()),
    federatedKey: (input) => federated((calls) => calls.federatedKey(input)),
    generateFederated: (input) => federated((calls) => calls.generateFederated(input)),
    importFederated: (input) => federated((calls) => calls.importFederated(input)),
    signFederated: (input) => federated((calls) => calls.signFederated(input)),
    releaseFederated: (input) => federated((calls) => calls.releaseFederated(input)),
    reshareFederated: (input) => federated((calls) => calls.reshareFederated(input)),
    federatedRequests: () => federated((calls) => calls.federatedRequests()),
    federatedRequest: (input) => federated((calls) => calls.federatedRequest(input)),
    continueRequest: (input) => federated((calls) => calls.continueRequest(input)),
    cancelRequest: (input) => federated((calls) => calls.cancelRequest(input)),
    approvals: () => federated((calls) => calls.approvals()),
    vote: (input) => federated((calls) => calls.vote(input)),
    policies: (input) => federated((calls) => calls.policies(input)),
    setPolicy: (input) => federated((calls) => calls.setPolicy(input)),
    auditFederation: (input) => federated((calls) => calls.auditFederation(input)),
    keyringOwner: () => registered((calls) => calls.keyringOwner()),
    workspaces: () => registered((calls) => calls.workspaces()),
    workspace: (input) => registered((calls) => calls.workspace(input)),
    createWorkspace: (input) => registered((calls) => calls.createWorkspace(input)),
    changeWorkspace: (input) => registered((calls) => calls.changeWorkspace(input)),
    workspaceLedger: (input) => registered((calls) => calls.workspaceLedger(input)),
    workspaceEvents: (input) => registered((calls) => calls.workspaceEvents(input)),
    createToken: (input) => registered((calls) => calls.createToken(input)),
    tokens: (input) => registered((calls) => calls.tokens(input)),
    revokeToken: (input) => registered((calls) => calls.revokeToken(input)),
    keyrings: () => registered((calls) => calls.keyrings()),
    keyring: (input) => registered((calls) => calls.keyring(input)),
    createKeyring: (input) => registered((calls) => calls.createKeyring(input)),
    changeKeyring: (input) => registered((calls) => calls.changeKeyring(input)),
    requestKey: (input) => registered((calls) => calls.requestKey(input)),
    requestSignatures: (input) => registered((calls) => calls.requestSignatures(input)),
    keyringRequests: (input) => registered((calls) => calls.keyringRequests(input)),
    keyringRequest: (input) => registered((calls) => calls.keyringRequest(input)),
    continueKeyringRequest: (input) => registered((calls) => calls.continueKeyringRequest(input)),
    cancelKeyringRequest: (input) => registered((calls) => calls.cancelKeyringRequest(input)),
    keyringInbox: () => registered((calls) => calls.keyringInbox()),
    voteKeyring: (input) => registered((calls) => calls.voteKeyring(input)),
    keyringKeys: (input) => registered((calls) => calls.keyringKeys(input)),
    keyringKey: (input) => registered((calls) => calls.keyringKey(input)),
    keyringAddress: (input) => registered((calls) => calls.keyringAddress(input)),
    ceremonyOpen: (input) => atCeremonies((calls) => calls.ceremonyOpen(input)),
    ceremonyInvites: (input) => atCeremonies((calls) => calls.ceremonyInvites(input)),
    ceremonyLook: (input) => atCeremonies((calls) => calls.ceremonyLook(input)),
    ceremonyJoin: (input) => atCeremonies((calls) => calls.ceremonyJoin(input)),
    ceremonyAdvance: (input) => atCeremonies((calls) => calls.ceremonyAdvance(input)),
    ceremonies: () => atCeremonies((calls) => calls.ceremonies()),
    ceremony: (input) => atCeremonies((calls) => calls.ceremony(input)),
    ceremonyClose: (input) => atCeremonies((calls) => calls.ceremonyClose(input)),
    ceremonyTranscript: (input) => atCeremonies((calls) => calls.ceremonyTranscript(input)),
    ceremonyOpening: (input) => atCeremonies((calls) => calls.ceremonyOpening(input)),
    ceremonyOwn: (input) => atCeremonies((calls) => calls.ceremonyOwn(input)),
    ceremonyCollect: (input) => atCeremonies((calls) => calls.ceremonyCollect(input)),
    ceremonyApprove: (input) => atCeremonies((calls) => calls.ceremonyApprove(input)),
    otpDevice: () => atCeremonies((calls) => calls.otpDevice()),
    otpCreate: (input) => atCeremonies((calls) => calls.otpCreate(input)),
    otpEntries: () => atCeremonies((calls) => calls.otpEntries()),
    otpGrant: (input) => atCeremonies((calls) => calls.otpGrant(input)),
    otpRevoke: (input) => atCeremonies((calls) => calls.otpRevoke(input)),
    otpHandouts: (input) => atCeremonies((calls) => calls.otpHandouts(input)),
    otpRequest: (input) => atCeremonies((calls) => calls.otpRequest(input)),
    otpCheck: (input) => atCeremonies((calls) => calls.otpCheck(input)),
    otpTokenCreate: (input) => atCeremonies((calls) => calls.otpTokenCreate(input)),
    otpTokens: (input) => atCeremonies((calls) => calls.otpTokens(input)),
    otpTokenRevoke: (input) => atCeremonies((calls) => calls.otpTokenRevoke(input)),
    otpVerify: (input) => atCeremonies((calls) => calls.otpVerify(input)),
    otpSend: (input) => atCeremonies((calls) => calls.otpSend(input)),
    otpReceive: (input) => atCeremonies((calls) => calls.otpReceive(input)),
    // says how things stand, and changes nothing of it
    status: () => inTurn(status),
    close() {
      closing ??= finish();
      return closing;
    },
  };

  async function finish(): Promise<void> {
    await tail;
    fileCalls?.end();
    try {
      await (await federationPart)?.end();
      await end();
      await keepReceipts();
    } finally {
      open.session?.forget();
      closeVault(open.box.vault);
      (await ceremonyPart)?.end();
      const { accountKey, keys, older, held } = open.box.model;
      wipe(held.federationSecret ?? undefined, accountKey, ...[keys, ...older].flatMap(Object.values));
    }
  }
}
