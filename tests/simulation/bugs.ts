import { copyFileSync, existsSync, rmSync } from "node:fs";
import type { AccountRow, RequestRow, Store, Tx } from "../../src/storage/store.ts";
import type { VirtualClock } from "./clock.ts";

/** What a planted bug may use. */
export interface Around {
  /** The database file. */
  readonly path: string;
  readonly clock: VirtualClock;
}

/** A mistake that the simulation must find, put around the store for one run: src knows nothing of it. */
export interface Bug {
  store(store: Store, around: Around): Store;
  /** Runs after each commit, before its acknowledgement; `alive` throws once the process has crashed. */
  afterCommit?(alive: () => void): Promise<void>;
  /** Runs while the database is closed, after a crash. */
  crashed?(): void;
}

/** A transaction with some other methods. */
function altered(tx: Tx, change: Partial<Tx>): Tx {
  return new Proxy(tx, {
    get: (target, name) => Reflect.get(change, name) ?? Reflect.get(target, name),
  });
}

/** A store whose transactions use some other methods. */
function withTx(store: Store, change: (tx: Tx) => Partial<Tx>): Store {
  return { ...store, transaction: (work) => store.transaction((tx) => work(altered(tx, change(tx)))) };
}

/** No bug. */
export const sound = (): Bug => ({ store: (store) => store });

const forgetsRequests = (): Bug => ({
  store: (store) => withTx(store, () => ({ request: async () => undefined, putRequest: async () => true })),
});

/** The answer to a request id is written in a transaction of its own, after the change: a crash comes between. */
function recordsLate(): Bug {
  const late: RequestRow[] = [];
  let sound: Store | null = null;
  return {
    store(store) {
      sound = store;
      return withTx(store, () => ({
        putRequest: async (row) => {
          late.push(row);
          return true;
        },
      }));
    },
    async afterCommit(alive) {
      const rows = late.splice(0);
      alive();
      for (const row of rows) await sound?.transaction((tx) => tx.putRequest(row));
    },
  };
}

/** Commits reach the disk a little after their acknowledgement: a crash takes the newest ones back. */
function commitsEarly(): Bug {
  const KEPT = 4;
  const FILES = ["", "-wal"];
  let path = "";
  let commits = 0;
  const copy = (number: number) => `${path}.copy-${number % KEPT}`;
  return {
    store(store, around) {
      ({ path } = around);
      return store;
    },
    async afterCommit() {
      for (const file of FILES) {
        rmSync(`${copy(commits)}${file}`, { force: true });
        if (existsSync(`${path}${file}`)) copyFileSync(`${path}${file}`, `${copy(commits)}${file}`);
      }
      commits += 1;
    },
    crashed() {
      if (commits < KEPT) return;
      rmSync(`${path}-shm`, { force: true });
      for (const file of FILES) {
        rmSync(`${path}${file}`, { force: true });
        // the oldest that is kept
        if (existsSync(`${copy(commits)}${file}`)) copyFileSync(`${copy(commits)}${file}`, `${path}${file}`);
      }
      commits = 0;
    },
  };
}

const keepsNoWindow = (): Bug => ({
  store: (store) =>
    withTx(store, (tx) => ({
      touchSession: (id, use) => tx.touchSession(id, { ...use, high: 0, window: new Uint8Array(use.window.length) }),
    })),
});

/** The account is looked at before the transaction, and swapped without a second look. */
const swapsBlindly = (): Bug => ({
  store: (store, { clock }) => ({
    ...store,
    async transaction(work) {
      const [seen] = await store.transaction((tx) => tx.accounts(null, 1));
      await clock.sleep(10);
      return store.transaction((tx) =>
        work(
          altered(tx, {
            account: async () => seen,
            async swapState(userId, _expected, next) {
              const now = await tx.account(userId);
              return now !== undefined && tx.swapState(userId, now.stateHash, next);
            },
            async appendState(userId, signed) {
              const [there] = await tx.statesSince(userId, signed.state.revision - 1, 1);
              if (!there) await tx.appendState(userId, signed);
            },
          }),
        ),
      );
    },
  }),
});

/** The change that follows a refused one is acknowledged without its secret. */
function losesLeaves(): Bug {
  let refused = false;
  return {
    store: (store) =>
      withTx(store, (tx) => ({
        putRequest: async (row) => {
          if (row.status === "stale") refused = true;
          return tx.putRequest(row);
        },
        appendLeaf: async (...leaf) => {
          if (!refused) await tx.appendLeaf(...leaf);
          refused = false;
        },
      })),
  };
}

/** Some events never enter the log. */
function missesEntries(): Bug {
  const EVERY = 17;
  let entries = 0;
  return {
    store: (store) =>
      withTx(store, (tx) => ({
        appendAudit: async (...entry) => {
          entries += 1;
          if (entries % EVERY !== 0) await tx.appendAudit(...entry);
        },
      })),
  };
}

/** Accounts are answered from memory for a while. */
function answersFromCache(): Bug {
  const KEPT_MS = 50;
  let kept: { row: AccountRow; untilMs: number } | null = null;
  return {
    store: (store, { clock }) =>
      withTx(store, (tx) => ({
        async account(userId) {
          if (kept && kept.untilMs > clock.now()) return kept.row;
          const row = await tx.account(userId);
          kept = row ? { row, untilMs: clock.now() + KEPT_MS } : null;
          return row;
        },
      })),
  };
}

/** A planted bug and how a run that finds it complains. */
interface Planted {
  make(): Bug;
  readonly shows: RegExp;
}

const TWICE = /called a change stale that was not|executed \d+ times|stored twice/;
const BACK = /went back|was cut|was forked|was replaced|left no (state|entry)|was acknowledged before/;

/** Every planted bug by what it does; each `make` gives a fresh one. */
export const BUGS: Readonly<Record<string, Planted>> = {
  "request ids are forgotten": { make: forgetsRequests, shows: TWICE },
  "replies are recorded after the transaction": { make: recordsLate, shows: TWICE },
  "commits are acknowledged before they are durable": { make: commitsEarly, shows: BACK },
  "the replay window is not kept": { make: keepsNoWindow, shows: /logged more often than it was sent/ },
  "the compare-and-swap is skipped": { make: swapsBlindly, shows: BACK },
  "a leaf is lost on a rebase": { make: losesLeaves, shows: /root that the owner signed|withholds|is not version/ },
  "audit entries are missed": {
    make: missesEntries,
    shows: /log was tampered with|of its log was replaced|left no entry/,
  },
  "stale answers are given from a cache": { make: answersFromCache, shows: BACK },
};
