import { defaultProfile, readProfile } from "../client/profile.ts";
import { Fault } from "../errors.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import {
  checkBackup,
  checkCloudFolder,
  checkPermissions,
  checkRecoveryKit,
  checkVaultFile,
} from "../ui/doctor/files.ts";
import { type Finding, fail, type Patient } from "../ui/doctor/finding.ts";
import { checkAgent, checkClipboard, checkCompletion, checkEnvironment, checkMemory } from "../ui/doctor/machine.ts";
import { checkServer } from "../ui/doctor/server.ts";
import { result } from "../ui/output.ts";
import { homeOf, wantedProfile } from "../ui/session.ts";
import { paint, plain } from "../ui/text.ts";

const CHECKS: readonly ((patient: Patient) => Finding[] | Promise<Finding[]>)[] = [
  checkPermissions,
  checkCloudFolder,
  checkVaultFile,
  checkRecoveryKit,
  checkBackup,
  checkServer,
  checkAgent,
  checkEnvironment,
  checkMemory,
  checkClipboard,
  checkCompletion,
];

/** The settings, or what is wrong with their files; and the profile, or what is wrong with its. */
async function patientOf(ctx: Context): Promise<{ patient: Patient; findings: Finding[] }> {
  const findings: Finding[] = [];
  const attempt = async <T>(check: string, work: () => Promise<T>): Promise<T | null> => {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      findings.push(fail(check, error.message, error.hint ?? "mend the file that it names"));
      return null;
    }
  };
  const { profiles } = homeOf(ctx);
  const wanted = await attempt("settings", () => wantedProfile(ctx));
  const profile = await attempt("profile", async () => {
    const name = wanted ?? defaultProfile(profiles) ?? "default";
    const found = readProfile(profiles, name);
    if (wanted !== null && !found) throw new Fault("not_found", `there is no profile "${wanted}"`);
    return found;
  });
  return { patient: { ctx, profile, nowMs: Date.now() }, findings };
}

async function examine(patient: Patient): Promise<Finding[]> {
  const found: Finding[] = [];
  for (const check of CHECKS) found.push(...(await check(patient)));
  return found;
}

const MARK = { ok: paint.green("ok  "), warn: paint.yellow("warn"), fail: paint.red("FAIL") } as const;

function lines(findings: readonly Finding[], fixed: readonly string[]): string {
  const width = Math.max(...findings.map(({ check }) => check.length));
  const shown = findings.flatMap(({ check, state, detail, fix }) => [
    `${MARK[state]}  ${check.padEnd(width)}  ${plain(detail)}`,
    ...(fix === null ? [] : [`${" ".repeat(width + 8)}${paint.dim(`Fix: ${plain(fix)}`)}`]),
  ]);
  const count = (state: Finding["state"]) => findings.filter((one) => one.state === state).length;
  const failed = count("fail");
  const summary = `${count("ok")} ok, ${count("warn")} to look at, ${failed} failed`;
  return [...shown, ...fixed.map((check) => `mended: ${check}`), summary].join("\n");
}

export default defineCommand({
  args: { fix: { type: "boolean", description: "mend what can be mended safely: modes of files, a left-over socket" } },
  data: "{ok, checks: [{check, state, detail, fix}], fixed: […]}; exit 10 if one failed",
  details:
    "Looks at files, vault, recovery kit, backup, server, agent, environment, memory, clipboard and completion. It asks " +
    "for no password, changes nothing without --fix, and ends with 10 if a check failed.",
  examples: [
    ["keyhold doctor", "every check, and how to mend what it finds"],
    ["keyhold doctor --fix", "mend what is safe to mend"],
    ["keyhold doctor --json", "for a monitor"],
  ],
  run: async (args, ctx) => {
    const { patient, findings } = await patientOf(ctx);
    let found = await ctx.term.step("Looking", examine(patient));
    const fixed: string[] = [];
    if (args.fix) {
      for (const { check, repair } of found) {
        if (!repair) continue;
        await repair();
        fixed.push(check);
      }
      if (fixed.length > 0) found = await examine(patient);
    }
    const all = [...findings, ...found];
    const failed = all.some(({ state }) => state === "fail");
    const checks = all.map(({ check, state, detail, fix }) => ({ check, state, detail, fix }));
    return result({ ok: !failed, checks, fixed }, () => lines(all, fixed), { exit: failed ? 10 : 0 });
  },
});
