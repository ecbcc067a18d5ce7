import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Validator } from "@seriousme/openapi-schema-validator";
import { errorTable } from "../../src/errors.ts";
import { openApi } from "../../src/wire/openapi.ts";
import { operations } from "../../src/wire/operations.ts";
import { documentedTable } from "../support/doctables.ts";

interface Posted {
  readonly operationId: string;
  readonly summary: string;
  readonly security: readonly object[];
  readonly responses: Readonly<Record<string, { readonly $ref?: string }>>;
}

const document = openApi() as unknown as {
  readonly paths: Readonly<Record<string, { readonly post: Posted }>>;
  readonly tags: readonly { readonly name: string }[];
  readonly components: { readonly responses: Readonly<Record<string, unknown>>; readonly securitySchemes: object };
  readonly "x-keyhold-client-only": readonly string[];
};
const described = Object.entries(document.paths).map(([path, { post }]) => ({
  name: path.replace("/v1/op/", ""),
  ...post,
}));

describe("the OpenAPI description", () => {
  test("is a valid document of version 3.1, and the validator refuses broken ones", async () => {
    const validator = new Validator();
    expect(await validator.validate(JSON.parse(JSON.stringify(openApi())))).toEqual({ valid: true });
    expect(validator.version).toBe("3.1");
    const { info: _, ...headless } = openApi();
    expect((await new Validator().validate(headless)).valid).toBe(false);
    const broken = { ...openApi(), paths: { "no-slash": { post: { responses: "none" } } } };
    expect((await new Validator().validate(broken)).valid).toBe(false);
  });

  test("is what docs/openapi.json holds: `bun run docs` writes it", () => {
    const held = readFileSync(join(import.meta.dir, "../../docs/openapi.json"), "utf8");
    expect(JSON.parse(held)).toEqual(JSON.parse(JSON.stringify(openApi())));
  });

  test("describes every operation with a token, and of the others facts alone; the rest are named", () => {
    const names = described.map(({ name }) => name);
    expect([...names, ...document["x-keyhold-client-only"]].toSorted()).toEqual(Object.keys(operations).toSorted());
    for (const [name, { auth, input }] of Object.entries(operations)) {
      expect([name, names.includes(name)]).toEqual([name, auth === "token" || isFact(auth, input)]);
    }
  });

  /** Asked without a session and without any input. */
  function isFact(auth: string, input: { schema?: () => { properties?: object } }): boolean {
    return auth === "none" && Object.keys(input.schema?.().properties ?? {}).length === 0;
  }

  test("asks for a token exactly where the table does, and names the challenge's status", () => {
    const bearer = { type: "http", scheme: "bearer" };
    expect(document.components.securitySchemes).toMatchObject({ workspaceToken: bearer, otpToken: bearer });
    for (const { name, security, responses } of described) {
      const token = operations[name as keyof typeof operations].auth === "token";
      // what opens a workspace opens no key's codes
      const relying = name === "otp.verify";
      expect([name, security]).toEqual([name, token ? [relying ? { otpToken: [] } : { workspaceToken: [] }] : []]);
      expect([name, "401" in responses, "404" in responses]).toEqual([name, token, token && !relying]);
      expect(Object.keys(responses)).toEqual(expect.arrayContaining(["200", "400", "429", "default"]));
    }
  });

  test("has one id and one tag that it explains for each operation, and every reference leads somewhere", () => {
    expect(new Set(described.map(({ operationId }) => operationId)).size).toBe(described.length);
    expect(described.every(({ operationId }) => /^[a-z][A-Za-z]+$/.test(operationId))).toBe(true);
    const tags = described.map(({ name }) => name.split(".")[0] ?? "");
    expect([...new Set(tags)].toSorted()).toEqual(document.tags.map(({ name }) => name).toSorted());
    const references = [...JSON.stringify(document).matchAll(/"\$ref":"#\/([^"]+)"/g)].map(([, path = ""]) => path);
    expect(references.length).toBeGreaterThan(10);
    for (const path of references) {
      const found = path.split("/").reduce<unknown>((at, name) => (at as Record<string, unknown>)[name], document);
      expect([path, typeof found]).toEqual([path, "object"]);
    }
  });

  test("gives each error code under the status that it has", () => {
    for (const { responses } of described) {
      for (const [status, { $ref = "" }] of Object.entries(responses)) {
        if (status === "200" || status === "default") continue;
        const code = $ref.replace("#/components/responses/", "");
        expect([code, errorTable().find((row) => row.code === code)?.http]).toEqual([code, Number(status)]);
      }
    }
  });

  test("says of each operation what docs/protocol.md says", () => {
    const rows = documentedTable("docs/protocol.md", ["operation", "auth", "mutation", "purpose"]);
    const purposes = new Map(rows.map(([name = "", , , purpose = ""]) => [name.replaceAll("`", ""), purpose]));
    for (const { name, summary } of described) expect([name, summary]).toEqual([name, purposes.get(name) ?? ""]);
  });
});
