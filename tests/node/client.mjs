// Calls the official client with its defaults: what to call comes as JSON on standard input, the
// results go as JSON to standard output.
import { text } from "node:stream/consumers";
import { Redis } from "@upstash/redis";

const { url, token, calls } = JSON.parse(await text(process.stdin));
const redis = new Redis({ url, token });

async function transaction(steps) {
  const multi = redis.multi();
  for (const [name, ...given] of steps) multi[name](...given);
  return await multi.exec();
}

// Resolves with the first message of a channel, to which it publishes itself once it listens.
function echo(channel, message) {
  return new Promise((resolve) => {
    const subscriber = redis.subscribe(channel);
    subscriber.on("subscribe", () => redis.publish(channel, message));
    subscriber.on("message", async (event) => {
      await subscriber.unsubscribe();
      resolve(event);
    });
  });
}

const results = [];
for (const [name, ...given] of calls) {
  try {
    let result;
    if (name === "transaction") result = await transaction(given[0]);
    else if (name === "echo") result = await echo(...given);
    else result = await redis[name](...given);
    results.push({ result });
  } catch (error) {
    results.push({ error: error.message });
  }
}
process.stdout.write(JSON.stringify(results));
