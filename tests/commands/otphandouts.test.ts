import { expect, setDefaultTimeout, test } from "bun:test";
import type { KeyholdClient } from "../../src/client/api.ts";
import type { OtpEntryInfo } from "../../src/client/ceremonyapi.ts";
import type { KeyId } from "../../src/ids.ts";
import { dataOf, withHome } from "./ceremonyhome.ts";

setDefaultTimeout(30_000);

/* Whose key it is, and who was handed a code of it, for people and for programs. */

const KEY = "42".repeat(32);

test("who was handed a code stands in the log, for people, programs and tables", async () => {
  const at = "2026-01-02T03:04:05.678Z";
  const item = { at, action: "otp.request", status: "ok", keyId: KEY.slice(0, 32) as KeyId, name: "door" } as const;
  const rest = { requestId: null, session: null, count: 1, signed: false, linkHex: "00" } as const;
  const to = [{ kind: "account", name: "ben" } as const, { kind: "device", name: "9c".repeat(32) } as const, null];
  const items = to.map((handedTo, i) => ({ seq: i + 1, ...item, ...rest, ...(handedTo && { handedTo }) }));
  const asked: unknown[] = [];
  const client: Partial<KeyholdClient> = {
    async auditList({ name }) {
      asked.push(name);
      return { items, next: null, requestId: null };
    },
  };
  await withHome(client, async (home) => {
    const rows = (await home.run(["audit", "list", "door", "--plain"])).out.trimEnd().split("\n");
    expect(rows.map((row) => row.split("\t")[4])).toEqual([
      "door (to ben)",
      "door (to device 9c9c9c9c9c9c9c9c…)",
      "door",
    ]);
    expect(dataOf(await home.run(["audit", "list", "door", "--json"]))).toMatchObject({ items });
    const csv = (await home.run(["audit", "export", "door", "--to", "csv"])).out.trimEnd().split("\r\n");
    expect(csv.map((line) => line.split(",").at(-1))).toEqual(["handedTo", "ben", `device ${"9c".repeat(32)}`, ""]);
    expect(asked).toEqual(["door", "door", "door"]);
  });
});

test("otp entries says whose key it is that one may ask for", async () => {
  const entry = (name: string, own: boolean, issuer: string | null): OtpEntryInfo => ({
    ...{ keyId: KEY, name, version: 1, kind: "hotp", own, issuer, status: "active", movedTo: null },
    ...{ counter: 0, provisioned: false, ceremonyId: null, grants: [] },
  });
  const items = [entry("a", false, "Acme doors"), entry("b", false, null), entry("c", true, "Acme doors")];
  await withHome({ otpEntries: async () => items }, async (home) => {
    const rows = (await home.run(["otp", "entries", "--plain"])).out.trimEnd().split("\n");
    expect(rows.map((row) => row.split("\t")[4])).toEqual(["requester, of Acme doors", "requester", "issuer"]);
    expect(dataOf(await home.run(["otp", "entries", "--json"]))).toMatchObject({ items });
  });
});
