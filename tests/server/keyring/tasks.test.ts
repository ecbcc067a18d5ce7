import { afterEach, expect, setDefaultTimeout, test } from "bun:test";
import { putStored, readStored } from "../../../src/server/documents.ts";
import { OPEN_COUNT } from "../../../src/server/keyring/requestdocuments.ts";
import { OPEN_MAX } from "../../../src/server/keyring/requests.ts";
import type { Store, Tx } from "../../../src/storage/store.ts";
import { faultOf, type KeyringRun, keyringRun, type RunOptions } from "../../support/keyringrun.ts";
import { rule } from "../../support/policies.ts";

setDefaultTimeout(60_000);

let run: KeyringRun | undefined;
const start = async (options: RunOptions = {}): Promise<KeyringRun> => {
  run = await keyringRun(options);
  return run;
};
afterEach(async () => {
  await run?.close();
  run = undefined;
});

const health = { version: "1", state: "ok", deadLetters: 0 };

/** Counts documents that are read. */
function counting(): { rows: number; wrap(store: Store): Store } {
  const counted = {
    rows: 0,
    wrap(store: Store): Store {
      const transaction: Store["transaction"] = (work, near) =>
        store.transaction((tx) => {
          const document: Tx["document"] = async (kind, id) => {
            counted.rows += 1;
            return tx.document(kind, id);
          };
          const documents: Tx["documents"] = async (...asked) => {
            const rows = await tx.documents(...asked);
            counted.rows += rows.length;
            return rows;
          };
          const seen: Tx = Object.assign(Object.create(tx), { document, documents });
          return work(seen);
        }, near);
      return Object.assign(Object.create(store), { transaction });
    },
  };
  return counted;
}

test("a look for tasks reads as many rows with 1,000 requests pending as with 20", async () => {
  const counted = counting();
  const alone = rule({ name: "alone", actions: ["generate"], require: { kind: "requester" } });
  const r = await start({ credits: 100_000, world: { wrap: counted.wrap }, policy: { rules: [alone] } });
  const fill = async (count: number) => {
    for (let i = 0; i < count; i++) await r.submit([r.generate()]);
  };
  const cost = async () => {
    counted.rows = 0;
    const tasks = await r.party(1).tasks();
    expect(tasks).toHaveLength(16);
    return counted.rows;
  };
  await fill(20);
  const few = await cost();
  await fill(980);
  expect(await cost()).toBe(few);
  expect(few).toBeLessThan(150);
}, 120_000);

test("tasks come oldest first, in pages, and say whether there are more", async () => {
  const r = await start();
  const made: string[] = [];
  for (let i = 0; i < 3; i++) {
    r.world.nowMs += 10;
    const view = await r.submit([r.generate()]);
    await r.vote(view, r.ann);
    made.push(view.requestId);
  }
  const look = (max: number) => r.world.call("party.tasks", { waitMs: 0, max, health }, r.party(1).who);
  const two = await look(2);
  expect(two.tasks.map(({ requestId }) => String(requestId))).toEqual(made.slice(0, 2));
  expect(two.more).toBe(true);
  const all = await look(16);
  expect(all.tasks.map(({ requestId }) => String(requestId))).toEqual(made);
  expect(all.more).toBe(false);
  expect(all.tasks[0]).toMatchObject({ work: { do: "prepare" } });
  // an old request goes on before a new one begins
  for (const one of r.parties) {
    const [first] = await one.tasks(1);
    if (first) await one.report(first, await one.answer(first));
  }
  expect((await look(1)).tasks[0]).toMatchObject({ requestId: made[0], work: { do: "begin" } });
});

test("a party that waits hears of a task at once, also of one that another process has made", async () => {
  const r = await start();
  const view = await r.submit([r.generate()]);
  const waiting = r.world.call("party.tasks", { waitMs: 10_000, max: 16, health }, r.party(1).who);
  await Bun.sleep(10);
  await r.vote(view, r.ann);
  expect((await waiting).tasks).toHaveLength(1);

  const [task] = await r.party(2).tasks();
  if (task) await r.party(2).report(task, { did: "ready" });
  const again = r.world.call("party.tasks", { waitMs: 10_000, max: 16, health }, r.party(2).who);
  await Bun.sleep(10);
  r.restart();
  for (const index of [1, 3]) await r.party(index).poll();
  expect((await again).tasks[0]).toMatchObject({ work: { do: "begin" } });
});

test("waits end when the registry closes, and nobody waits afterwards", async () => {
  const r = await start();
  const waiting = r.world.call("party.tasks", { waitMs: 10_000, max: 16, health }, r.party(1).who);
  await Bun.sleep(10);
  await r.world.service.close();
  expect((await waiting).tasks).toEqual([]);
  const next = await r.world.call("party.tasks", { waitMs: 10_000, max: 16, health }, r.party(1).who);
  expect(next.tasks).toEqual([]);
});

test("a report that names an older task changes nothing; one for what does not exist changes and tells nothing", async () => {
  const r = await start();
  const view = await r.submit([r.generate()]);
  await r.vote(view, r.ann);
  const one = r.party(1);
  const [task] = await one.tasks();
  if (!task) throw new Error("no task");
  await one.report({ itemId: task.itemId, seq: task.seq + 100 }, { did: "ready" });
  expect(await one.tasks()).toEqual([task]);
  await one.report(task, { did: "decided" });
  await one.report(task, { did: "dropped" });
  await one.report(task, { did: "said", attempt: 1, messages: [], outcome: null });
  expect(await one.tasks()).toEqual([task]);
  await one.report(task, { did: "ready" });
  expect(await one.tasks()).toEqual([]);
  await one.report(task, { did: "ready" });
  expect(await faultOf(one.report({ itemId: "5".repeat(64) as never, seq: 1 }, { did: "ready" }))).toBe("ok");
});

test("a party that could not prepare is asked again after a while, and has a new number", async () => {
  const r = await start();
  const view = await r.submit([r.generate()]);
  await r.vote(view, r.ann);
  const one = r.party(1);
  const [task] = await one.tasks();
  if (!task) throw new Error("no task");
  await one.report(task, { did: "missed", attempt: 0, why: "the server is away", final: false });
  expect(await one.tasks()).toEqual([]);
  r.world.nowMs += 2_000;
  const [again] = await one.tasks();
  expect(again?.seq).toBeGreaterThan(task.seq);
  expect(again?.work.do).toBe("prepare");
});

test("what a party says of itself and its backlog stand in the keyring", async () => {
  const r = await start();
  const view = await r.submit([r.generate()]);
  await r.vote(view, r.ann);
  const said = { version: "9.9", state: "enclave away", deadLetters: 4 };
  await r.world.call("party.tasks", { waitMs: 0, max: 1, health: said }, r.party(2).who);
  const { parties } = await r.world.call("keyring.get", { keyringId: r.keyringId }, r.ann);
  expect(parties[1]).toMatchObject({ ...said, lastSeenAtMs: r.world.nowMs, lastResponseAtMs: null, backlog: 1 });
  await r.work();
  const after = await r.world.call("keyring.get", { keyringId: r.keyringId }, r.ann);
  expect(after.parties[1]).toMatchObject({ lastResponseAtMs: r.world.nowMs, backlog: 0 });
});

test("an account without a party key gets no tasks; a party sees the policy of an open request, and no other", async () => {
  const r = await start();
  expect(await faultOf(r.world.call("party.tasks", { waitMs: 0, max: 1, health }, r.ann))).toStartWith("denied");
  const policy = () => r.world.call("workspace.policy", { workspaceId: r.workspaceId, after: 0 }, r.party(1).who);
  expect(await faultOf(policy())).toStartWith("not_found");
  const view = await r.submit([r.generate()]);
  expect((await policy()).chain).toHaveLength(1);
  await r.world.call("keyring.cancel", { requestId: view.requestId }, r.ann);
  expect(await faultOf(policy())).toStartWith("not_found");
  // of a request that is over, as long as it has something left to do for it
  const late = await r.submit([r.generate()]);
  await r.vote(late, r.ann);
  r.party(1).twist = (task, report) => (task.work.do === "decide" ? null : report);
  await r.work(30);
  expect((await r.view(late)).status).toBe("fulfilled");
  expect((await policy()).chain).toHaveLength(1);
  r.party(1).twist = (_, report) => report;
  await r.work();
  expect(await faultOf(policy())).toStartWith("not_found");
});

test("an account, and a workspace at a keyring, has so many requests open and no more; what ends makes room", async () => {
  const r = await start();
  const fill = (id: string, owner: string, count: number) =>
    r.world.store.transaction(async (tx) => {
      const before = await readStored(tx, OPEN_COUNT, id);
      const value = { parties: [], ...before?.value, count };
      await putStored(tx, OPEN_COUNT, { id, owner, place: 0, value }, before?.version ?? 0);
    });
  const counted = [
    [r.ann.userId as string, "", OPEN_MAX.account],
    [`${r.workspaceId}:${r.keyringId}`, r.workspaceId as string, OPEN_MAX.workspace],
  ] as const;
  for (const [id, owner, most] of counted) {
    await fill(id, owner, most);
    expect(await faultOf(r.submit([r.generate()]))).toStartWith("rate_limited");
    expect(await r.balance()).toEqual({ balance: 1_000, escrowed: 0 });
    await fill(id, owner, most - 1);
    const last = await r.submit([r.generate()]);
    expect(await faultOf(r.submit([r.generate()]))).toStartWith("rate_limited");
    await r.world.call("keyring.cancel", { requestId: last.requestId }, r.ann);
    expect((await r.submit([r.generate()])).status).toBe("pending");
    await r.world.call(
      "keyring.cancel",
      { requestId: (await r.world.call("workspace.inbox", { after: null }, r.ann)).items[0]?.requestId as never },
      r.ann,
    );
    await fill(id, owner, 0);
  }
});
