import { describe, expect, test } from "bun:test";
import { asHashId, type FederationId } from "../../src/ids.ts";
import { FEDERATED_TYPES } from "../../src/protocol/federation/kinds.ts";
import type { PolicyDocument } from "../../src/protocol/federation/policy.ts";
import { covers, POLICY_ACTIONS } from "../../src/protocol/federation/policyaction.ts";
import { tryPolicy } from "../../src/protocol/federation/policytrial.ts";
import { policyDocumentJson, policyFromJson } from "../../src/wire/federation/policyfile.ts";
import { projectText } from "../support/doctables.ts";

const page = projectText("docs/policies.md");
const place = {
  federationId: asHashId<FederationId>("00".repeat(32)),
  version: 1,
  previous: new Uint8Array(32),
  createdAtMs: 0,
};
const DAYS: Readonly<Record<string, number>> = { Wed: Date.UTC(2026, 0, 7, 12), Sun: Date.UTC(2026, 0, 11, 12) };

interface Example {
  readonly document: PolicyDocument;
  readonly json: unknown;
  readonly rows: readonly Readonly<Record<string, string>>[];
}

const cells = (line: string) =>
  line
    .split("|")
    .slice(1, -1)
    .map((cell) => cell.trim());

/** Each policy of the page with the table that follows it. */
function examples(): Example[] {
  return [...page.matchAll(/^```json\n(\{.*?)^```$(.*?)(?=^```|^## )/gms)].map(([, source = "", after = ""]) => {
    const json: unknown = JSON.parse(source);
    const lines = after.split("\n").filter((line) => line.startsWith("|"));
    const [head = "", , ...rows] = lines;
    const names = cells(head);
    return {
      json,
      document: policyFromJson(json, place),
      rows: rows.map((line) => Object.fromEntries(cells(line).map((cell, at) => [names[at] ?? "", cell]))),
    };
  });
}

const list = (cell: string | undefined) => (cell ?? "").split(", ").filter((name) => name !== "");

describe("docs/policies.md", () => {
  const found = examples();

  test("has three policies", () => {
    expect(found.map(({ document }) => document.name)).toEqual(["board", "hot-wallet", "house-rules"]);
  });

  test.each(found.map((one) => [one.document.name, one] as const))(
    "%s: reads and prints as it stands",
    (_name, one) => {
      expect(policyDocumentJson(one.document)).toEqual(one.json as never);
    },
  );

  test.each(
    found.flatMap(({ document, rows }) =>
      rows.map((row) => [document.name, JSON.stringify(row), document, row] as const),
    ),
  )("%s: %s", (_name, _row, document, row) => {
    const [value, unit] = (row["amount"] ?? "").split(" ");
    const { decision, rule } = tryPolicy({
      document,
      action: POLICY_ACTIONS.find((one) => one === row["action"]) ?? "import",
      type: FEDERATED_TYPES.find((one) => one === row["type"]) ?? "ed25519",
      amount: value && unit ? { value, unit } : null,
      requester: row["requester"] || null,
      approve: list(row["approve"]),
      reject: list(row["reject"]),
      used: Number(row["used"] ?? 0),
      nowMs: DAYS[row["day"] ?? "Wed"] ?? 0,
    });
    expect([decision, rule ?? "–"] as string[]).toEqual([row["decision"] ?? "", row["rule"] ?? ""]);
  });

  test("the examples have tables", () => {
    expect(found.map(({ rows }) => rows.length)).toEqual([13, 12, 5]);
  });

  test("its table of actions is the code's", () => {
    const from = page.indexOf("| action     | is ");
    const rows = page
      .slice(from, page.indexOf("\n\n", from))
      .split("\n")
      .slice(2)
      .map(cells)
      .map(([action, , allowing, denying]) => [action, allowing, denying].map((cell = "") => cell.replaceAll("`", "")));
    const names = (effect: "allow" | "deny", action: (typeof POLICY_ACTIONS)[number]) => [
      ...POLICY_ACTIONS.filter((one) => covers({ effect, actions: [one] }, action)),
      ...(covers({ effect, actions: [] }, action) ? ["no action"] : []),
    ];
    expect(rows.toSorted()).toEqual(
      POLICY_ACTIONS.map((action) => {
        const denying = names("deny", action).filter((one) => one !== action);
        return [action as string, names("allow", action).join(", or "), denying.join(", or ")];
      }).toSorted(),
    );
  });
});
