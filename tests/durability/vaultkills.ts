import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Figure } from "../support/figure.ts";
import { seeded } from "../support/seeded.ts";
import { recoverVault } from "./vaultcheck.ts";

export interface VaultKillOptions {
  readonly kills: number;
  readonly seed: number;
  /** Milliseconds at most between a writer's first word and its end. */
  readonly withinMs: number;
  readonly progress?: (done: number) => void;
}

const WRITER = join(import.meta.dir, "vaultwriter.ts");

/** Reads a child's lines until it is killed, some time after its first one. */
async function killedWriter(command: readonly string[], afterMs: number): Promise<string[]> {
  const child = Bun.spawn([...command], { stdin: "ignore", stdout: "pipe", stderr: "inherit" });
  const decoder = new TextDecoder();
  let text = "";
  let timer: ReturnType<typeof setTimeout> | undefined;
  for await (const part of child.stdout) {
    text += decoder.decode(part, { stream: true });
    timer ??= setTimeout(() => child.kill("SIGKILL"), afterMs);
  }
  clearTimeout(timer);
  await child.exited;
  if (child.signalCode !== "SIGKILL") throw new Error("the writer ended by itself");
  return text.split("\n").slice(0, -1);
}

/** Kills processes in the middle of writing a vault: it stays whole, keeps what was acknowledged, and no file strays. */
export async function vaultKills(options: VaultKillOptions): Promise<Figure> {
  const { kills, seed, withinMs } = options;
  const random = seeded(seed);
  const scratch = mkdtempSync(join(tmpdir(), "keyhold-vaultkills-"));
  const path = join(scratch, "data", "vault");
  const keyFile = join(scratch, "key");
  mkdirSync(join(scratch, "data"), { mode: 0o700 });
  const wrong: string[] = [];
  let [acknowledged, lost, corrupt, strays] = [0, 0, 0, 0];
  const said: string[] = [];
  // writers in a row that may each have written a round before they could say so
  let quiet = 1;
  try {
    for (let kill = 0; kill < kills; kill++) {
      const lines = await killedWriter(
        [process.execPath, WRITER, path, keyFile, "0", "forever"],
        random.next() * withinMs,
      );
      said.push(...lines);
      acknowledged += lines.length;
      if (readdirSync(join(scratch, "data")).some((name) => name.includes(".tmp-"))) strays += 1;
      const key = Uint8Array.fromHex(readFileSync(keyFile, "utf8"));
      quiet = lines.some((line) => line.startsWith("vault ")) ? 1 : quiet + 1;
      const found = await recoverVault(path, key, said.slice(-500), quiet);
      lost += found.lost.length;
      corrupt += found.corrupt.length;
      wrong.push(...found.corrupt.map((text) => `kill ${kill}: ${text}`));
      options.progress?.(kill + 1);
    }
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  const counts = [`${kills} kills`, `${acknowledged} acknowledged steps`, `${strays} left temporary files, all swept`];
  return { name: "vault-kills", ran: "kill -9 of a process that writes a vault", counts, lost, corrupt, wrong };
}
