// What a user would write instead: verifies, publishes at QoS 1, answers after the PUBACK. It keeps nothing on disk and drops
// no duplicates. It publishes the payload's bytes as they came, for printing the parsed payload again would break ids of 18 digits.
const { createHmac, timingSafeEqual } = require('crypto');
const http = require('http');
const mqtt = require('mqtt');

const [port, brokerPort, secret] = process.argv.slice(2);
const broker = mqtt.connect(`mqtt://127.0.0.1:${brokerPort}`);

function answer(response, status, message) {
  const text = JSON.stringify({ code: status === 200 ? 0 : status, message, data: null });
  response.writeHead(status, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text) });
  response.end(text);
}

function take(request, response, body) {
  const timestamp = request.headers['x-meowflow-timestamp'] || '';
  const right = createHmac('sha256', secret).update(`POST ${request.headers.host}${request.url} `).update(body).update(timestamp).digest();
  const given = Buffer.from(request.headers['x-meowflow-signature'] || '', 'hex');
  if (Math.abs(Date.now() - timestamp) > 300000 || given.length !== right.length || !timingSafeEqual(given, right)) {
    return answer(response, 403, 'signature verification failed');
  }
  const topic = `meowflow/${JSON.parse(body).event.replaceAll('.', '/')}`;
  const payload = body.subarray(body.indexOf('"payload":') + 10, body.lastIndexOf(',"pushTime"'));
  broker.publish(topic, payload, { qos: 1 }, (error) => answer(response, error ? 503 : 200, error ? error.message : 'OK'));
}

broker.once('connect', () => http.createServer((request, response) => {
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk)).on('end', () => take(request, response, Buffer.concat(chunks)));
}).listen(port, '127.0.0.1'));
