import { equalBytes } from "../crypto/bytes.ts";
import type { FederatedRequestId } from "../ids.ts";
import { decisionBytes, orderBytes, type SignedDecision, type SignedOrder } from "../protocol/federation/request.ts";
import { responseBytes, type SignedResponse } from "../protocol/keyring/response.ts";
import type { Migration } from "../storage/migrations.ts";
import { sqliteFault } from "../storage/sqlite/faults.ts";
import { openDatabase } from "../storage/sqlite/open.ts";
import { decodeJson, encodeJson } from "../wire/codec.ts";
import { signedDecision, signedOrder } from "../wire/federation/records.ts";
import { signedResponse } from "../wire/keyring/records.ts";
import { type Task, task as taskCodec } from "../wire/keyring/views.ts";

/** Where an item stands at this connector. */
export type ItemState = "open" | "answered" | "over" | "dead";

/** An item as the outbox has it. */
export interface ItemRow {
  readonly itemId: FederatedRequestId;
  readonly requestId: string;
  readonly seq: number;
  /** What was to be done last. */
  readonly doing: string;
  readonly state: ItemState;
  /** Tries of this `seq` that came to nothing. */
  readonly tries: number;
  /** Not to be tried before, in milliseconds since 1970. */
  readonly nextAtMs: number;
  readonly why: string;
  readonly updatedAtMs: number;
}

/** What cannot be done, and why. */
export interface DeadLetter extends ItemRow {
  readonly task: Task;
}

/** How many items are in each state; `unsent` responses are signed and not acknowledged yet. */
export interface Counts {
  readonly open: number;
  readonly answered: number;
  readonly over: number;
  readonly dead: number;
  readonly unsent: number;
}

/** What a connector keeps, in SQLite: each call is durable when it returns (docs/protocol.md §9.6). */
export interface Outbox {
  /** Makes what the work writes durable at once, when it returns; none of it when it throws. */
  together<T>(work: () => T): T;
  item(id: FederatedRequestId): ItemRow | null;
  /** Notes a task that came in; a later `seq` begins its tries anew. A dead letter stays one. */
  take(task: Task, nowMs: number): ItemRow;
  /** Keeps the order of an attempt. @returns false where another one is kept for the same attempt */
  keepOrder(id: FederatedRequestId, order: SignedOrder): boolean;
  order(id: FederatedRequestId, attempt: number): SignedOrder | null;
  /** Keeps the first decision. @returns false where another one is kept */
  keepDecision(id: FederatedRequestId, decision: SignedDecision): boolean;
  response(id: FederatedRequestId): SignedResponse | null;
  /** Keeps the one response to an item, for good. @returns the one that is kept: the first */
  keepResponse(response: SignedResponse, nowMs: number): SignedResponse;
  /** Responses that were signed and never acknowledged, the oldest first. */
  unsent(): readonly { readonly seq: number; readonly response: SignedResponse }[];
  /** Notes that the registry has taken the response. */
  sent(id: FederatedRequestId, nowMs: number): void;
  /** Notes a try that came to nothing. */
  wait(id: FederatedRequestId, why: string, nextAtMs: number): void;
  /** Notes that the newest task is done. */
  settle(id: FederatedRequestId, state: ItemState, nowMs: number): void;
  /** Lays a task aside, with the newest {@link DEAD_MAX} others. */
  bury(task: Task, why: string, nowMs: number): void;
  dead(): readonly DeadLetter[];
  /** Puts dead letters back, one or all. @returns how many */
  revive(id: FederatedRequestId | null, nowMs: number): number;
  /** Takes the tasks that {@link revive} has put back, each once. */
  revived(): readonly Task[];
  counts(): Counts;
  /** Of those what somebody should look at: costs the same however many items there are. */
  troubles(): Pick<Counts, "dead" | "unsent">;
  /** What open items wait for, each reason once. */
  waits(): readonly string[];
  /** Something small to remember, such as the last contact. */
  fact(name: string): string | null;
  setFact(name: string, value: string): void;
  close(): void;
}

const MIGRATIONS: readonly Migration[] = [
  {
    name: "0001-outbox",
    sql: `CREATE TABLE item (
  item_id TEXT PRIMARY KEY, request_id TEXT NOT NULL, seq INTEGER NOT NULL, doing TEXT NOT NULL, state TEXT NOT NULL,
  tries INTEGER NOT NULL, next_at_ms INTEGER NOT NULL, why TEXT NOT NULL, updated_at_ms INTEGER NOT NULL,
  decision TEXT, task TEXT, replay INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX item_state ON item (state, updated_at_ms);
CREATE INDEX item_replay ON item (replay) WHERE replay = 1;
CREATE TABLE attempt_order (
  item_id TEXT NOT NULL, attempt INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (item_id, attempt)
) STRICT, WITHOUT ROWID;
CREATE TABLE response (
  item_id TEXT PRIMARY KEY, body TEXT NOT NULL, at_ms INTEGER NOT NULL, sent_at_ms INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX response_unsent ON response (at_ms) WHERE sent_at_ms IS NULL;
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;`,
  },
];

interface RawItem {
  readonly item_id: string;
  readonly request_id: string;
  readonly seq: number;
  readonly doing: string;
  readonly state: string;
  readonly tries: number;
  readonly next_at_ms: number;
  readonly why: string;
  readonly updated_at_ms: number;
}

const rowOf = (raw: RawItem): ItemRow => ({
  itemId: raw.item_id as FederatedRequestId,
  requestId: raw.request_id,
  seq: raw.seq,
  doing: raw.doing,
  state: raw.state as ItemState,
  tries: raw.tries,
  nextAtMs: raw.next_at_ms,
  why: raw.why,
  updatedAtMs: raw.updated_at_ms,
});

const encoder = new TextEncoder();
/** Reasons are shown to people. */
const WHY_MAX = 500;
/** Dead letters that are kept, the newest: so that a registry cannot fill the disk with what cannot be. */
export const DEAD_MAX = 1_000;

/**
 * Opens the outbox of a connector; whoever works on its tasks holds the lock of the directory.
 *
 * @param options `readonly` for a look beside a connector that runs. @throws Fault storage, corrupt, unsupported
 */
export function openOutbox(path: string, { readonly = false }: { readonly readonly?: boolean } = {}): Outbox {
  const connection = openDatabase(path, readonly, MIGRATIONS);
  const step = <T>(work: () => T): T => {
    try {
      return work();
    } catch (error) {
      throw sqliteFault(error, "cannot use the outbox");
    }
  };
  const get = <R>(sql: string, ...given: (string | number | null)[]): R | null =>
    step(() => connection.statement(sql).get(...given) as R | null);
  const all = <R>(sql: string, ...given: (string | number | null)[]): R[] =>
    step(() => connection.statement(sql).all(...given) as R[]);
  const run = (sql: string, ...given: (string | number | null)[]): number =>
    step(() => connection.statement(sql).run(...given).changes);
  const responseAt = (id: string): SignedResponse | null => {
    const found = get<{ body: string }>("SELECT body FROM response WHERE item_id = ?1", id);
    return found && decodeJson(signedResponse, encoder.encode(found.body));
  };
  const item = (id: string): ItemRow | null => {
    const raw = get<RawItem>("SELECT * FROM item WHERE item_id = ?1", id);
    return raw && rowOf(raw);
  };
  const orderAt = (id: string, attempt: number): SignedOrder | null => {
    const found = get<{ body: string }>(
      "SELECT body FROM attempt_order WHERE item_id = ?1 AND attempt = ?2",
      id,
      attempt,
    );
    return found && decodeJson(signedOrder, encoder.encode(found.body));
  };

  const unsentCount = (): number =>
    get<{ n: number }>("SELECT count(*) AS n FROM response WHERE sent_at_ms IS NULL")?.n ?? 0;

  return {
    together(work) {
      step(() => connection.exec("BEGIN IMMEDIATE"));
      try {
        const done = work();
        step(() => connection.exec("COMMIT"));
        return done;
      } catch (error) {
        if (connection.db.inTransaction) connection.exec("ROLLBACK");
        throw error;
      }
    },
    item,
    take({ itemId, requestId, seq, work }, nowMs) {
      run(
        `INSERT INTO item (item_id, request_id, seq, doing, state, tries, next_at_ms, why, updated_at_ms, replay)
VALUES (?1, ?2, ?3, ?4, 'open', 0, 0, '', ?5, 0)
ON CONFLICT (item_id) DO UPDATE SET seq = ?3, doing = ?4, updated_at_ms = ?5,
  tries = CASE WHEN seq = ?3 THEN tries ELSE 0 END, next_at_ms = CASE WHEN seq = ?3 THEN next_at_ms ELSE 0 END
WHERE seq <= ?3 AND state <> 'dead'`,
        itemId,
        requestId,
        seq,
        work.do,
        nowMs,
      );
      const row = item(itemId);
      if (row === null) throw sqliteFault(new Error("no row"), "cannot use the outbox");
      return row;
    },
    keepOrder(id, order) {
      const { attempt } = order.order;
      run(
        "INSERT INTO attempt_order (item_id, attempt, body) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
        id,
        attempt,
        encodeJson(signedOrder, order),
      );
      const kept = orderAt(id, attempt);
      return kept !== null && equalBytes(orderBytes(kept.order), orderBytes(order.order));
    },
    order: orderAt,
    keepDecision(id, decision) {
      run(
        "UPDATE item SET decision = ?2 WHERE item_id = ?1 AND decision IS NULL",
        id,
        encodeJson(signedDecision, decision),
      );
      const kept = get<{ decision: string | null }>("SELECT decision FROM item WHERE item_id = ?1", id)?.decision;
      if (!kept) return false;
      const first = decodeJson(signedDecision, encoder.encode(kept));
      return equalBytes(decisionBytes(first.decision), decisionBytes(decision.decision));
    },
    response: responseAt,
    keepResponse(signed, nowMs) {
      const id = signed.response.requestId;
      run(
        "INSERT INTO response (item_id, body, at_ms) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
        id,
        encodeJson(signedResponse, signed),
        nowMs,
      );
      return responseAt(id) ?? signed;
    },
    unsent: () =>
      all<{ seq: number; body: string }>(
        `SELECT item.seq AS seq, response.body AS body FROM response JOIN item USING (item_id)
WHERE response.sent_at_ms IS NULL ORDER BY response.at_ms`,
      ).map(({ seq, body }) => ({ seq, response: decodeJson(signedResponse, encoder.encode(body)) })),
    sent: (id, nowMs) => void run("UPDATE response SET sent_at_ms = ?2 WHERE item_id = ?1", id, nowMs),
    wait: (id, why, nextAtMs) =>
      void run(
        "UPDATE item SET tries = tries + 1, next_at_ms = ?2, why = ?3 WHERE item_id = ?1",
        id,
        Math.round(nextAtMs),
        why.slice(0, WHY_MAX),
      ),
    settle: (id, state, nowMs) =>
      void run(
        `UPDATE item SET state = ?2, tries = 0, next_at_ms = 0, why = '', updated_at_ms = ?3
WHERE item_id = ?1 AND (state <> ?2 OR tries <> 0 OR next_at_ms <> 0 OR why <> '')`,
        id,
        state,
        nowMs,
      ),
    bury(task, why, nowMs) {
      run(
        "UPDATE item SET state = 'dead', why = ?2, task = ?3, updated_at_ms = ?4, replay = 0 WHERE item_id = ?1",
        task.itemId,
        why.slice(0, WHY_MAX),
        encodeJson(taskCodec, task),
        nowMs,
      );
      run(
        `UPDATE item SET state = 'over', task = NULL WHERE item_id IN (SELECT item_id FROM item WHERE state = 'dead'
ORDER BY updated_at_ms DESC, item_id LIMIT -1 OFFSET ?1)`,
        DEAD_MAX,
      );
    },
    dead: () =>
      all<RawItem & { task: string }>(
        "SELECT * FROM item WHERE state = 'dead' AND task IS NOT NULL ORDER BY updated_at_ms, item_id",
      ).map((raw) => ({ ...rowOf(raw), task: decodeJson(taskCodec, encoder.encode(raw.task)) })),
    revive: (id, nowMs) =>
      run(
        `UPDATE item SET state = 'open', tries = 0, next_at_ms = 0, updated_at_ms = ?2, replay = 1
WHERE state = 'dead' AND (?1 IS NULL OR item_id = ?1)`,
        id,
        nowMs,
      ),
    revived() {
      const found = all<{ task: string; item_id: string }>("SELECT item_id, task FROM item WHERE replay = 1");
      for (const one of found) run("UPDATE item SET replay = 0 WHERE item_id = ?1", one.item_id);
      return found.map(({ task }) => decodeJson(taskCodec, encoder.encode(task)));
    },
    counts() {
      const found = new Map(
        all<{ state: string; n: number }>("SELECT state, count(*) AS n FROM item GROUP BY state").map((one) => [
          one.state,
          one.n,
        ]),
      );
      const of = (state: ItemState): number => found.get(state) ?? 0;
      return { open: of("open"), answered: of("answered"), over: of("over"), dead: of("dead"), unsent: unsentCount() };
    },
    waits: () =>
      all<{ why: string }>("SELECT DISTINCT why FROM item WHERE state = 'open' AND why <> '' ORDER BY why LIMIT 8").map(
        ({ why }) => why,
      ),
    troubles: () => ({
      dead: get<{ n: number }>("SELECT count(*) AS n FROM item WHERE state = 'dead'")?.n ?? 0,
      unsent: unsentCount(),
    }),
    fact: (name) => get<{ value: string }>("SELECT value FROM fact WHERE name = ?1", name)?.value ?? null,
    setFact: (name, value) =>
      void run(
        "INSERT INTO fact (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2",
        name,
        value,
      ),
    close: () => connection.close(),
  };
}

/** True for the very same words of a party. */
export function isSameResponse(a: SignedResponse, b: SignedResponse): boolean {
  return equalBytes(responseBytes(a.response), responseBytes(b.response));
}
