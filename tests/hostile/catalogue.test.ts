import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { errorOf, type Ran, SETUP_MS } from "../binary/world.ts";
import { documentedSections } from "../support/doctables.ts";
import { vaultOf } from "../support/hostileworld.ts";
import { type Attack, type Attempt, LINES } from "./attack.ts";
import { CATALOGUE, GROUPS } from "./catalogue.ts";
import { openStage, type Stage, type Way } from "./stage.ts";

/**
 * The fully malicious server (docs/threat-model.md, adversary C): each attack of the catalogue is detected or has no
 * effect, whether an agent holds the session or each command logs in for itself, and afterwards the client works with
 * the honest server as if nothing had been.
 */

setDefaultTimeout(60_000);

test("the catalogue has every line, each attack once, each with a defence that is written down", () => {
  expect(new Set(CATALOGUE.map(({ line }) => line))).toEqual(new Set(LINES));
  expect(new Set(CATALOGUE.map(({ name }) => name)).size).toBe(CATALOGUE.length);
  expect(CATALOGUE.length).toBeGreaterThanOrEqual(80);
  const sections = documentedSections("docs/protocol.md");
  for (const { name, defence } of CATALOGUE) {
    expect([name, defence.length]).not.toEqual([name, 0]);
    expect([name, defence.filter((section) => !sections.has(section))]).toEqual([name, []]);
  }
});

/** The command ended as the attack says, and a failure printed no data and changed no vault. */
function ended(ran: Ran, { ends }: Pick<Attempt, "ends">): void {
  if (ends === "either") {
    ended(ran, { ends: ran.code === 0 ? "harmless" : "integrity" });
    return;
  }
  if (ends === "harmless") {
    expect([ran.code, ran.err]).toEqual([0, expect.not.stringContaining('"error"')]);
    return;
  }
  const { exit, codes } = ends === "integrity" ? { exit: 8, codes: ["integrity"] } : ends;
  expect([ran.code, ran.out, ran.err]).toEqual([exit, "", expect.any(String)]);
  // a child's own streams are not ours to format
  expect(codes as readonly string[]).toContain(errorOf(ran).code);
}

/** One attack from beginning to end, against a client of one way. */
async function play(stage: Stage, { run }: Attack): Promise<void> {
  const attempt = await run(stage);
  const { lie, device = stage.desk, command, stdin, ends } = attempt;
  const at = command.indexOf("--");
  const argv = at === -1 ? [...command, "--json"] : [...command.slice(0, at), "--json", ...command.slice(at)];
  const options = stdin === undefined ? {} : { stdin };
  const once = () => (attempt.whole ? device.home : device).run(argv, options);
  const before = vaultOf(device.home);
  if (lie) {
    const { result, lies } = await stage.world.during(lie, once);
    expect(lies).toBeGreaterThan(0);
    ended(result, attempt);
  } else {
    ended(await once(), attempt);
  }
  // a login of one's own may have moved the vault on before the lie
  const still = stage.way === "through the agent" && ends !== "harmless" && ends !== "either";
  if (still) expect(vaultOf(device.home) === before).toBe(true);
  await attempt.undo?.();
  if (!attempt.once) ended(await once(), { ends: "harmless" });
  await attempt.after?.();
  if (attempt.evidence) {
    await stage.warned(device);
    await stage.replaceDesk();
  } else {
    await stage.unharmed(device, attempt.holds);
  }
}

const WAYS = ["through the agent", "by itself"] as const satisfies readonly Way[];

/** Each attack is played in one way, the next one in the other; KEYHOLD_TEST_WHOLE=1 plays each in both. */
const WHOLE = process.env["KEYHOLD_TEST_WHOLE"] === "1";

for (const [group, all] of Object.entries(GROUPS)) {
  describe(group, () => {
    const stages: Stage[] = [];
    beforeAll(async () => {
      stages.push(...(await Promise.all(WAYS.map(openStage))));
    }, SETUP_MS);
    afterAll(async () => {
      for (const stage of stages) await stage.close();
    });

    for (const [turn, attack] of all.entries()) {
      test(`${attack.line}: ${attack.name}`, async () => {
        const against = WHOLE ? stages : stages.filter((_, i) => i === turn % WAYS.length);
        const played = await Promise.allSettled(against.map((stage) => play(stage, attack)));
        for (const [i, result] of played.entries()) {
          if (result.status === "fulfilled") continue;
          throw new Error(`against a client ${against[i]?.way}`, { cause: result.reason });
        }
      });
    }
  });
}
