import { equalBytes } from "../crypto/bytes.ts";
import { appendLeaves, EMPTY_ROOT, foldNodes, frontierOf } from "../crypto/tree.ts";
import { Fault } from "../errors.ts";
import type { UserId } from "../ids.ts";
import { type Checkpoint, openCheckpoint, positionLeaf, restartLeaf, signCheckpoint } from "../protocol/log.ts";
import type { CheckpointRow, LogHead, LogLeaf, Store, Tx } from "../storage/store.ts";
import type { LogKeys, ServerContext } from "./context.ts";

/** Figures of the server-wide log. */
export interface LogFigures {
  readonly size: number;
  /** Size of the newest checkpoint. */
  readonly signed: number;
  /** When this process last saw the newest checkpoint cover the whole log, in milliseconds since 1970. */
  readonly currentAtMs: number;
}

/** Carries accounts' positions into the server-wide log (docs/protocol.md §6.3). Several processes may do so at once. */
export interface Logbook {
  /** Logs every position that is not logged yet, and signs the result. */
  flush(): Promise<void>;
  /** Signs the newest checkpoint under the keys of now, after one of them was rotated. */
  resign(): Promise<void>;
  /** Flushes every `logBatchMs` from now on. */
  start(): void;
  /** Ends that; resolves when nothing runs any more. */
  stop(): Promise<void>;
  figures(): LogFigures;
}

const NO_LINK = new Uint8Array(32);

/**
 * Begins a server-wide log: the first one of a server with `null`, that of a new incarnation with the last known
 * checkpoint of the one before, which its first leaf names.
 */
export async function startLog(tx: Tx, origin: string, restart: Checkpoint | null): Promise<void> {
  if (!restart) return tx.startLog({ origin, size: 0, root: EMPTY_ROOT, restart }, []);
  const hash = restartLeaf(restart);
  const leaf: LogLeaf = { hash, pseudonym: NO_LINK, seq: 0, link: NO_LINK };
  return tx.startLog({ origin, size: 1, root: hash, restart }, [leaf]);
}

const broken = (why: string): Fault =>
  new Fault("corrupt", "cannot go on with the server-wide log", { why, hint: "keyhold server check" });

/** The log's head, which must be this server's. */
async function headOf(tx: Tx, origin: string): Promise<LogHead> {
  const head = await tx.logHead();
  if (!head) throw broken("it was never begun");
  if (head.origin !== origin) throw broken("it belongs to another server or incarnation");
  return head;
}

/** One batch: the heads after a user id, as one leaf each, by compare-and-swap; gives where the next one begins. */
async function batch(store: Store, origin: string, after: UserId | null, limit: number): Promise<UserId | null> {
  return store.transaction(async (tx) => {
    const heads = await tx.unloggedHeads(after, limit);
    const last = heads.at(-1);
    if (!last) return null;
    const before = await headOf(tx, origin);
    const frontier = await tx.logNodes(frontierOf(before.size));
    if (!equalBytes(foldNodes(frontier), before.root)) throw broken("its nodes do not give its root");
    const leaves = heads.map(({ pseudonym, seq, link }) => {
      const position = { pseudonym, seq, link };
      return { ...position, hash: positionLeaf(position) };
    });
    const next = appendLeaves(
      before.size,
      frontier,
      leaves.map(({ hash }) => hash),
    );
    const won = await tx.appendLog(before, next, { leaves, nodes: next.nodes, heads });
    // whoever else appended took these heads too, or the next flush does
    return won && heads.length === limit ? last.userId : null;
  });
}

/** Root of the tree at a size, from its nodes. */
async function rootAt(tx: Tx, size: number): Promise<Uint8Array> {
  return foldNodes(await tx.logNodes(frontierOf(size)));
}

/** What is to be signed: only what is committed, whole, and continues the newest checkpoint. */
async function unsignedHead(
  store: Store,
  { origin, signers }: LogKeys,
): Promise<{ head: LogHead; stored?: CheckpointRow }> {
  return store.transaction(async (tx) => {
    const head = await headOf(tx, origin);
    if (!equalBytes(await rootAt(tx, head.size), head.root)) throw broken("its nodes do not give its root");
    const stored = await tx.checkpoint();
    if (!stored) return { head };
    const opened = signers.map(({ publicKey }) => openCheckpoint(stored.note, origin, publicKey)).find(Boolean);
    if (!opened || opened.size !== stored.size) throw broken("the newest checkpoint is not this server's");
    if (opened.size > head.size) throw broken("it is shorter than its newest checkpoint");
    if (!equalBytes(await rootAt(tx, opened.size), opened.root)) throw broken("it contradicts its newest checkpoint");
    return { head, stored };
  });
}

/** Makes the logbook; begins the log where there is none. Flush once before serving: there is no checkpoint sooner. */
export async function openLogbook(
  ctx: Pick<ServerContext, "store" | "now" | "log" | "limits">,
  onFault: (error: unknown) => void,
): Promise<Logbook> {
  const { store, now, limits } = ctx;
  await store.transaction(async (tx) => {
    if (!(await tx.logHead())) await startLog(tx, ctx.log.origin, null);
  });
  let figures: LogFigures = { size: 0, signed: 0, currentAtMs: now() };
  let timer: Timer | undefined;
  let reported = "";
  let fresh = true;
  let stopped = false;
  let running: Promise<void> = Promise.resolve();

  async function once(): Promise<void> {
    for (let after: UserId | null = null; ; ) {
      after = await batch(store, ctx.log.origin, after, limits.logBatch);
      if (after === null) break;
    }
    const { head, stored } = await unsignedHead(store, ctx.log);
    // once a process also under the keys of now: a key may have been rotated
    const note = fresh || stored?.size !== head.size ? signCheckpoint(head, ctx.log.signers) : stored.note;
    fresh = false;
    if (note !== stored?.note) {
      await store.transaction((tx) => tx.putCheckpoint({ size: head.size, note }));
    }
    figures = { size: head.size, signed: head.size, currentAtMs: now() };
  }

  /** One after another: a flush that is asked for while one runs sees what that one missed. */
  function flush(): Promise<void> {
    const next = running.then(once);
    running = next.catch(() => undefined);
    return next;
  }

  async function loop(): Promise<void> {
    try {
      await flush();
      reported = "";
    } catch (error) {
      // every second the same is no news
      if (!stopped && String(error) !== reported) onFault(error);
      reported = String(error);
    }
    if (!stopped) timer = setTimeout(() => void loop(), limits.logBatchMs);
    timer?.unref();
  }

  return {
    flush,
    resign() {
      fresh = true;
      return flush();
    },
    start: () => void loop(),
    async stop() {
      stopped = true;
      clearTimeout(timer);
      await running;
    },
    figures: () => figures,
  };
}
