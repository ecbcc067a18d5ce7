import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { EXPLAINED, judge } from "../../scripts/audit.ts";

const PROJECT = join(import.meta.dir, "..", "..");
const ADVISORY = {
  tsyringe: [{ url: "https://example.org/advisories/GHSA-aaaa-bbbb-cccc", title: "all is lost", severity: "high" }],
};

describe("scripts/audit.ts", () => {
  /** Runs it against a registry on loopback that answers with `reply`. */
  async function against(
    reply: () => Response,
  ): Promise<{ code: number; out: string; errors: string; asked: string[] }> {
    const asked: string[] = [];
    const registry = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      async fetch(request) {
        asked.push(new URL(request.url).pathname);
        await request.bytes();
        return reply();
      },
    });
    try {
      const child = Bun.spawn([process.execPath, join(PROJECT, "scripts", "audit.ts")], {
        env: { ...process.env, BUN_CONFIG_REGISTRY: registry.url.href },
        stdin: "ignore",
        stdout: "pipe",
        stderr: "pipe",
      });
      const [out, errors, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
      return { code, out, errors, asked };
    } finally {
      await registry.stop(true);
    }
  }

  test("asks the registry, and passes when there is nothing", async () => {
    const { code, out, asked } = await against(() => Response.json({}));
    expect({ code, out }).toEqual({ code: 0, out: "audit: 0 open, 0 explained\n" });
    expect(asked).toEqual(["/-/npm/v1/security/advisories/bulk"]);
  });

  test("fails by an advisory, and names it", async () => {
    const { code, out, errors } = await against(() => Response.json(ADVISORY));
    expect({ code, out }).toEqual({ code: 1, out: "audit: 1 open, 0 explained\n" });
    expect(errors).toMatch(/^audit: tsyringe: all is lost \(high\) https:\S+GHSA-aaaa-bbbb-cccc$/m);
  });

  test.each([404, 405, 503])("a registry that answers %d is a counted skip", async (status) => {
    const { code, out } = await against(() => new Response("", { status }));
    expect(code).toBe(0);
    expect(out).toMatch(new RegExp(`^audit: 1 skipped: .*${status}`));
  });
});

test("an advisory counts as explained by its identifier alone", () => {
  const explained = judge(JSON.stringify(ADVISORY), "", { "GHSA-aaaa-bbbb-cccc": "not called" });
  expect(explained).toMatchObject({ kind: "known", open: [], explained: [expect.stringContaining("not called")] });
  const other = judge(JSON.stringify(ADVISORY), "", { "GHSA-aaaa-bbbb-cccd": "not called", tsyringe: "all" });
  expect(other).toMatchObject({ kind: "known", explained: [] });
  expect(judge("", "refused\n", {})).toEqual({ kind: "unavailable", why: "refused" });
});

test("docs/supply-chain.md explains each advisory that is passed over", () => {
  const text = readFileSync(join(PROJECT, "docs", "supply-chain.md"), "utf8");
  expect([...new Set(text.match(/GHSA(?:-[a-z0-9]{4}){3}/g))].sort()).toEqual(Object.keys(EXPLAINED).sort());
});
