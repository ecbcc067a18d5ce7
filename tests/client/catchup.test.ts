import { expect, test } from "bun:test";
import { addTestDevice, registerDevice, startTestServer } from "../support/harness.ts";

const LIST = { prefix: null, search: null, tag: null, fresh: true } as const;

test("a device that missed more changes than one page of states catches up with all of them", async () => {
  const server = await startTestServer();
  const link = server.link();
  const busy = await registerDevice(link, "ada", "correct horse");
  const away = await addTestDevice(link, "ada", "correct horse");
  await busy.client.store({ name: "n", type: null, value: Uint8Array.of(1), tags: [], where: "server" });
  const changes = 2_100;
  for (let i = 0; i < changes; i++)
    await busy.client.tag({ name: "n", add: [`t${i % 2}`], remove: [`t${(i + 1) % 2}`] });
  const { items } = await away.client.list(LIST);
  expect(items.map((item) => item.tags)).toEqual([[`t${(changes - 1) % 2}`]]);
  const revision = busy.open.box.model.bound?.head.state.revision;
  expect(away.open.box.model.bound?.head.state.revision).toBe(revision as number);
  await busy.end();
  await away.end();
  await server.close();
}, 60_000);
