import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { openDeviceName } from "../protocol/account.ts";
import { closeVault } from "../protocol/vault.ts";
import type { KeyholdClient, Status } from "./api.ts";
import { exportAudit } from "./auditfile.ts";
import { listAudit, verifyAudit } from "./auditing.ts";
import { infoOf } from "./changes.ts";
import { importItems } from "./importing.ts";
import { linkDevice } from "./link.ts";
import { type Model, RECEIPTS_MAX } from "./model.ts";
import { type Open, online, save } from "./opened.ts";
import { getManySecrets, getSecret, historyOf, syncedAt } from "./reading.ts";
import { resumeRewrapping } from "./rewrapping.ts";
import { synchronise } from "./sync.ts";
import { readPending } from "./vaultfile.ts";
import { generateSecret, removeSecret, renameSecret, restoreSecret, storeSecret, tagSecret } from "./writing.ts";

function listed(model: Model, input: { prefix: string | null; search: string | null; tag: string | null }) {
  const prefix = input.prefix?.normalize("NFC") ?? "";
  const wanted = input.search?.normalize("NFC").toLowerCase() ?? null;
  const tag = input.tag?.normalize("NFC") ?? null;
  return [...model.secrets.values()]
    .filter((secret) => secret.leaf.status === "live" && secret.meta !== null)
    .map(infoOf)
    .filter((info) => info.name.startsWith(prefix))
    .filter((info) => tag === null || info.tags.includes(tag))
    .filter((info) => wanted === null || [info.name, ...info.tags].some((text) => text.toLowerCase().includes(wanted)))
    .sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}

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
      return done;
    });
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
    const live = [...model.secrets.values()].filter(({ leaf }) => leaf.status === "live").length;
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
          }
        : null,
      auditHead: bound ? { seq: bound.witnessed.seq, linkHex: bound.witnessed.link.toHex() } : null,
    };
  }

  return {
    generate: (input) => queued(() => generateSecret(open, input)),
    store: (input) => queued(() => storeSecret(open, input)),
    get: (input) => queued(() => getSecret(open, input)),
    getMany: (input) => queued(() => getManySecrets(open, input)),
    list: (input) =>
      queued(() =>
        online(open, input.fresh, async (at) => {
          if (!at)
            return {
              items: listed(open.box.model, input),
              requestId: null,
              from: "vault" as const,
              syncedAt: syncedAt(open),
            };
          const before = open.box.model.bound?.head.state.revision;
          const { answer } = await synchronise(open.box.model, at.session, open.around, "secret.list");
          const items = listed(open.box.model, input);
          if (open.box.model.bound?.head.state.revision !== before) await save(open);
          return {
            items,
            requestId: answer.requestId,
            from: "server" as const,
            syncedAt: syncedAt(open),
          };
        }),
      ),
    history: (input) => queued(() => historyOf(open, input)),
    restore: (input) => queued(() => restoreSecret(open, input)),
    rename: (input) => queued(() => renameSecret(open, input)),
    tag: (input) => queued(() => tagSecret(open, input)),
    remove: (input) => queued(() => removeSecret(open, input)),
    importItems: (input) => queued(() => importItems(open, input)),
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
        return linkDevice(open, place.server);
      }),
    sync: () =>
      queued(() =>
        online(open, true, async () => {
          const { changed, answer } = await synchronise(open.box.model, session(), open.around);
          await save(open);
          return { revision: open.box.model.bound?.head.state.revision ?? 0, changed, requestId: answer.requestId };
        }),
      ),
    // says how things stand, and changes nothing of it
    status: () => inTurn(status),
    close() {
      closing ??= finish();
      return closing;
    },
  };

  async function finish(): Promise<void> {
    await tail;
    try {
      await end();
      await keepReceipts();
    } finally {
      open.session?.forget();
      closeVault(open.box.vault);
      const { accountKey, keys, older } = open.box.model;
      wipe(accountKey, ...[keys, ...older].flatMap(Object.values));
    }
  }
}
