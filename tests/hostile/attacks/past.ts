import { random } from "../../support/harness.ts";
import { editing } from "../../support/hostile.ts";
import { type Attack, type Attempt, attacks } from "../attack.ts";
import type { Stage } from "../stage.ts";

/** The past, and other presents: databases put back, accounts continued twice. */

const LIST = ["list", "--fresh"];

/** Serves yesterday's database while `command` runs, and today's again afterwards. */
const yesterday =
  (command: readonly string[], stdin?: string) =>
  async (stage: Stage): Promise<Attempt> => {
    const before = await stage.world.snapshot();
    await stage.store(stage.desk, "note/a", `value of a, after ${command.join(" ")}`);
    const today = await stage.world.snapshot();
    await stage.world.serve(before);
    return {
      lie: null,
      command,
      ...(stdin === undefined ? {} : { stdin }),
      ends: "integrity",
      undo: () => stage.world.serve(today),
    };
  };

/** Continues the account twice, once by each device; serves the phone's continuation, and gives the desk's. */
async function forked(stage: Stage, more: number): Promise<{ ofDesk: string }> {
  const { world, desk, phone } = stage;
  await desk.ok(["sync"]);
  await phone.ok(["sync"]);
  const base = await world.snapshot();
  const name = stage.fresh("fork");
  await stage.store(desk, name, "of the desk");
  const ofDesk = await world.snapshot();
  await world.serve(base);
  for (let i = 0; i <= more; i++) await phone.ok(["store", name], { stdin: `of the phone ${i}` });
  return { ofDesk };
}

/** Shows the desk the phone's continuation, and then the phone the desk's. */
const shownToDesk = (more: number, command: readonly string[]) => async (stage: Stage) => {
  const { ofDesk } = await forked(stage, more);
  const attempt: Attempt = {
    lie: null,
    command,
    ends: "integrity",
    undo: async () => {
      await stage.world.serve(ofDesk);
      // the other device notices as soon as it is shown the desk's branch
      const ran = await stage.phone.run(["sync", "--json"]);
      if (ran.code !== 8) throw new Error(`the phone took the other branch in: ${ran.out}`);
      await stage.replacePhone();
    },
  };
  return attempt;
};

export const PAST: readonly Attack[] = [
  ...attacks("serve yesterday's account", ["5.6"], {
    "yesterday's database, to a list": yesterday(LIST),
    "yesterday's database, to a list from the vault": yesterday(["list"]),
    "yesterday's database, to a read": yesterday(["get", "note/a", "--reveal", "--fresh"]),
    "yesterday's database, to a read of what was there": yesterday(["get", "note/b", "--reveal", "--fresh"]),
    "yesterday's database, to a synchronisation": yesterday(["sync"]),
    "yesterday's database, to a look at the log": yesterday(["audit", "verify"]),
    "yesterday's database, to a history": yesterday(["history", "note/a"]),
    "yesterday's database, to a store": async (stage) => {
      const name = stage.fresh("kept");
      const attempt = await yesterday(["store", name], "kept until the server is honest")(stage);
      // it is kept before an answer can warn, and the honest server gets it
      stage.known.set(name, "kept until the server is honest");
      return attempt;
    },
    "the log cut back, the account as it was": async (stage) => {
      const before = await stage.world.snapshot();
      for (let i = 0; i < 3; i++) await stage.desk.ok(["get", "note/a", "--fresh"]);
      const today = await stage.world.snapshot();
      await stage.world.serve(before);
      return { lie: null, command: LIST, ends: "integrity", undo: () => stage.world.serve(today) };
    },
    "an older position beside a newer account": async (stage) => {
      const older = (revision: number) => Math.max(1, revision - 1);
      const lie = editing(stage.world, {}, (head) => ({ ...head, revision: older(head.revision) }));
      return { lie, command: LIST, ends: "integrity" };
    },
    "the same position with another account behind it": async (stage) => {
      const lie = editing(stage.world, {}, (head) => ({ ...head, stateHash: random(32) }));
      return { lie, command: LIST, ends: "integrity" };
    },
  }),
  ...attacks("fork two devices", ["5.6"], {
    "each has its own continuation, and one is shown the longer one": shownToDesk(1, LIST),
    "each has its own continuation of the same length": shownToDesk(0, ["sync"]),
  }),
];
