import { expectExit, expectThat, type Step, type World } from "../ui/demo.ts";

const PASSWORD = "correct horse battery staple";

const laptop = (world: World, args: readonly string[], stdin?: string) => world.run("laptop", args, stdin);
const password = (world: World) => ["--password-file", world.file("password", PASSWORD)];
const server = ({ server: { url, pin } }: World) => ["--server", url, "--pin", pin, "--account", "ada"];

/** The main job: one server, one account, two devices. */
export const MAIN_JOB: readonly Step[] = [
  {
    title: "register",
    shown: "keyhold register --server URL --pin PIN --account ada",
    async run(world) {
      const { data } = expectExit(await laptop(world, ["register", ...server(world), ...password(world)]));
      return `account ${data["account"]}, user id ${data["userId"]}: the server never saw the password`;
    },
  },
  {
    title: "login",
    shown: "keyhold login",
    async run(world) {
      const { data } = expectExit(await laptop(world, ["login", ...password(world)]));
      const session = data["session"] as { id: string; expiresAt: string };
      return `session ${session.id} until ${session.expiresAt}, held by the agent`;
    },
  },
  {
    title: "generate",
    shown: "keyhold generate db/prod --type token --tag prod",
    async run(world) {
      const { data } = expectExit(await laptop(world, ["generate", "db/prod", "--type", "token", "--tag", "prod"]));
      return `${data["name"]}  ${data["type"]}  version ${data["version"]}  ${data["keyId"]}  (not shown)`;
    },
  },
  {
    title: "get",
    shown: "keyhold get db/prod --reveal",
    async run(world) {
      const { data } = expectExit(await laptop(world, ["get", "db/prod", "--reveal"]));
      expectThat(typeof data["value"] === "string" && data["value"].length === 43, "a token of 32 bytes comes back");
      return String(data["value"]);
    },
  },
  {
    title: "store",
    shown: 'printf "s3cret line" | keyhold store mail/app',
    async run(world) {
      const { data } = expectExit(await laptop(world, ["store", "mail/app"], "s3cret line"));
      const read = expectExit(await laptop(world, ["read", "kh://mail/app"]));
      expectThat(read.stdout === "s3cret line", "the value comes back byte for byte");
      return `${data["name"]}  ${data["type"]}  version ${data["version"]}, read back equal`;
    },
  },
  {
    title: "import",
    shown: "keyhold import secrets.json --prefix old/",
    async run(world) {
      const items = [
        { name: "wifi", type: "note", value: "hunter22", tags: ["home"], createdAt: null },
        { name: "pin", type: "pin", value: "493817", tags: [], createdAt: null },
      ];
      const file = world.file("secrets.json", JSON.stringify({ keyhold: "export", v: 1, items }));
      const { data } = expectExit(await laptop(world, ["import", file, "--prefix", "old/"]));
      expectThat(data["imported"] === 2, "both are imported");
      return `imported ${data["imported"]}, skipped ${data["skipped"]}`;
    },
  },
  {
    title: "list",
    shown: "keyhold list",
    async run(world) {
      const { data } = expectExit(await laptop(world, ["list"]));
      const items = data["items"] as { name: string; type: string; where: string }[];
      expectThat(items.length === 4, "four secrets are there");
      return items.map((one) => `${one.name.padEnd(12)} ${one.type.padEnd(8)} ${one.where}`).join("\n");
    },
  },
  {
    title: "export",
    shown: "keyhold export --all --to json --out backup.json",
    async run(world) {
      const { data } = expectExit(
        await laptop(world, ["export", "--all", "--to", "json", "--out", world.file("backup.json")]),
      );
      return `${data["count"]} secrets, read back and compared, ${String(data["digest"]).slice(0, 24)}…`;
    },
  },
  {
    title: "run",
    shown: "keyhold run --env WIFI=kh://old/wifi -- sh -c 'printf %s \"$WIFI\" | wc -c'",
    async run(world) {
      const child = ["--", "sh", "-c", 'printf %s "$WIFI" | wc -c'];
      const { stdout } = expectExit(await laptop(world, ["run", "--env", "WIFI=kh://old/wifi", ...child]));
      expectThat(stdout.trim() === "8", "the child gets the value");
      return `the child sees its ${stdout.trim()} characters`;
    },
  },
  {
    title: "second device",
    shown: "keyhold login --server URL --pin PIN --account ada   (other home)",
    async run(world) {
      const phone = (args: readonly string[]) => world.run("phone", args);
      expectExit(await phone(["login", ...server(world), ...password(world)]));
      const { data } = expectExit(await phone(["get", "old/wifi", "--reveal"]));
      expectThat(data["value"] === "hunter22", "the other device reads the same value");
      expectExit(await phone(["logout"]));
      return "reads old/wifi: the same value";
    },
  },
  {
    title: "vault",
    shown: "keyhold vault check",
    async run(world) {
      const { data } = expectExit(await laptop(world, ["vault", "check", ...password(world)]));
      return `the local vault is whole: ${data["secrets"]} secrets`;
    },
  },
  {
    title: "audit list",
    shown: "keyhold audit list old/wifi",
    async run(world) {
      const { data } = expectExit(await laptop(world, ["audit", "list", "old/wifi"]));
      const items = data["items"] as { seq: number; action: string; status: string; signed: boolean }[];
      expectThat(
        items.some((one) => one.action === "secret.import"),
        "the import is in the log",
      );
      return items
        .map((one) => `${one.seq}  ${one.action}  ${one.status}  ${one.signed ? "signed" : "server"}`)
        .join("\n");
    },
  },
  {
    title: "audit verify",
    shown: "keyhold audit verify",
    async run(world) {
      const { data } = expectExit(await laptop(world, ["audit", "verify"]));
      expectThat(data["ok"] === true, "the log is whole");
      return `the log is whole: ${data["size"]} entries, head ${String(data["headHex"]).slice(0, 16)}…`;
    },
  },
  {
    title: "logout",
    shown: "keyhold logout",
    async run(world) {
      expectExit(await laptop(world, ["logout"]));
      const { data } = expectExit(await laptop(world, ["get", "db/prod"]), 4);
      return `closed on the server too; keyhold get db/prod: ${data["message"]} [exit 4]`;
    },
  },
];

/** What to type to go on for real. */
export const GO_ON = [
  "keyhold serve",
  "keyhold register --server https://127.0.0.1:7443 --pin sha256:… --account NAME",
  "keyhold login && keyhold generate db/prod",
] as const;
