import { expect, test } from "bun:test";
import { cpSync, rmSync } from "node:fs";
import { join } from "node:path";
import { SETUP_MS } from "../binary/world.ts";
import { figureHolds } from "../support/figure.ts";
import { POSTGRES_MS, testWithPostgres } from "../support/postgres.ts";
import { postgresCrashes, serverKills } from "./serverkills.ts";

test(
  "serve killed twelve times among the writes of four accounts: nothing acknowledged is lost",
  async () => {
    const options = { kills: 12, accounts: 4, seed: 1, writeMs: [20, 400], least: 100 } as const;
    const figure = await serverKills("server-kills", options);
    expect(figure).toMatchObject({ lost: 0, corrupt: 0, wrong: [] });
    expect(figureHolds(figure)).toBe(true);
  },
  SETUP_MS,
);

const DATABASE = ["keyhold.db", "keyhold.db-wal"];

test(
  "control: a database that comes back as it was a crash ago is found",
  async () => {
    const figure = await serverKills("control", {
      kills: 3,
      accounts: 2,
      seed: 2,
      writeMs: [200, 300],
      least: 1,
      whileDown: (directory, kill) => {
        const [from, to] = kill === 0 ? [directory, join(directory, "..")] : [join(directory, ".."), directory];
        rmSync(join(to, "keyhold.db-shm"), { force: true });
        for (const file of DATABASE) cpSync(join(from, file), join(to, file));
      },
    });
    expect(figureHolds(figure)).toBe(false);
    expect(figure.wrong.join()).toContain("went back");
  },
  SETUP_MS,
);

testWithPostgres(
  "PostgreSQL crashed five times below serve, once with serve itself: nothing acknowledged is lost",
  async () => {
    const options = { kills: 5, accounts: 3, seed: 4, writeMs: [100, 500], least: 40 } as const;
    const figure = await postgresCrashes("postgres-crashes", options);
    expect(figure).toMatchObject({ lost: 0, corrupt: 0, wrong: [] });
  },
  SETUP_MS + POSTGRES_MS,
);
