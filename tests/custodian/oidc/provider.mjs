// A real OpenID Connect provider for tests/custodian/test_oidc_provider.py: client credentials, JWT access tokens, keys
// that rotate. Speaks by lines of JSON on standard input and output; tells where it listens first.
import { createRequire } from 'node:module';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { generateKeyPairSync } from 'node:crypto';
import { pathToFileURL } from 'node:url';

const require = createRequire(`${process.env.OIDC_HOME}/package.json`);
const { default: Provider } = await import(pathToFileURL(require.resolve('oidc-provider')));

const resource = process.env.OIDC_RESOURCE;
const port = Number(process.env.OIDC_PORT ?? 0);
let serial = 0;

function freshKey() {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  serial += 1;
  return { ...privateKey.export({ format: 'jwk' }), alg: 'ES256', kid: `key-${serial}`, use: 'sig' };
}

function provider(issuer, keys) {
  return new Provider(issuer, {
    clients: ['cloister-cli', 'another-client'].map((id) => ({
      client_id: id,
      client_secret: `secret-of-${id}`,
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
    })),
    clientDefaults: { id_token_signed_response_alg: 'ES256' },
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_ctx, indicator) => ({
          accessTokenFormat: 'jwt',
          accessTokenTTL: 300,
          audience: indicator,
          jwt: { sign: { alg: 'ES256' } },
          scope: 'lend look',
        }),
        defaultResource: () => resource,
      },
    },
    jwks: { keys },
    scopes: ['lend', 'look'],
  });
}

const listener = createServer((request, response) => current(request, response));
await new Promise((resolve) => listener.listen(port, '127.0.0.1', resolve));
const issuer = `http://127.0.0.1:${listener.address().port}`;
let keys = [freshKey()];
let current = provider(issuer, keys).callback();
console.log(JSON.stringify({ issuer }));

for await (const line of createInterface({ input: process.stdin })) {
  if (line === 'rotate') {
    keys = [freshKey(), ...keys.slice(0, 1)]; // the newest signs, the one before is still told
  } else if (line === 'forget') {
    keys = keys.slice(0, 1);
  } else {
    break;
  }
  current = provider(issuer, keys).callback();
  console.log(JSON.stringify({ keys: keys.map((key) => key.kid) }));
}
listener.close();
process.exit(0);
