import io.debezium.embedded.Connect;
import io.debezium.engine.ChangeEvent;
import io.debezium.engine.DebeziumEngine;
import io.apicurio.registry.utils.converter.AvroConverter;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.apache.kafka.connect.json.JsonConverter;
import org.apache.kafka.connect.source.SourceRecord;
import org.apache.kafka.connect.storage.Converter;

/**
 * Follows tables with Debezium's own engine and prints each record on a line: its key and its value in JSON with their
 * schemas, in JSON without, and in Avro as Confluent frames it. All six are in Base64 with a tab between them, and
 * nothing where there is none.
 *
 * <p>Called with the address of Apicurio's registry of schemas and settings of the connector as name=value, and ends
 * when it has printed a value with the word "the-very-end" in it, and the end of its transaction.
 */
public class Follow {
    public static void main(String[] arguments) throws Exception {
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        Properties settings = new Properties();
        settings.setProperty("name", "engine");
        settings.setProperty("connector.class", "io.debezium.connector.postgresql.PostgresConnector");
        settings.setProperty("offset.storage", "org.apache.kafka.connect.storage.MemoryOffsetBackingStore");
        settings.setProperty("plugin.name", "pgoutput");
        settings.setProperty("provide.transaction.metadata", "true");
        for (String argument : List.of(arguments).subList(1, arguments.length)) {
            String[] setting = argument.split("=", 2);
            settings.setProperty(setting[0], setting[1]);
        }
        Map<String, String> registry = Map.of(
            "apicurio.registry.url", arguments[0],
            "apicurio.registry.auto-register", "true",
            "apicurio.registry.as-confluent", "true",
            "apicurio.registry.use-id", "contentId",
            "apicurio.registry.headers.enabled", "false");
        List<Converter> keys = new ArrayList<>();
        List<Converter> values = new ArrayList<>();
        for (boolean isKey : new boolean[] {true, false}) {
            for (String schemas : List.of("true", "false")) {
                Converter json = new JsonConverter();
                json.configure(Map.of("schemas.enable", schemas), isKey);
                (isKey ? keys : values).add(json);
            }
            Converter avro = new AvroConverter<Object>();
            avro.configure(registry, isKey);
            (isKey ? keys : values).add(avro);
        }
        CountDownLatch ended = new CountDownLatch(1);
        boolean[] isLast = {false};
        DebeziumEngine<ChangeEvent<SourceRecord, SourceRecord>> engine = DebeziumEngine.create(Connect.class)
            .using(settings)
            .notifying(event -> {
                if (ended.getCount() == 0) {
                    return;
                }
                SourceRecord record = event.value();
                List<String> parts = new ArrayList<>();
                for (int way = 0; way < keys.size(); way++) {
                    parts.add(text(keys.get(way), record.topic(), record.keySchema(), record.key()));
                    parts.add(text(values.get(way), record.topic(), record.valueSchema(), record.value()));
                }
                out.println(String.join("\t", parts));
                isLast[0] |= String.valueOf(record.value()).contains("the-very-end");
                if (isLast[0] && String.valueOf(record.value()).contains("status=END")) {
                    ended.countDown();
                }
            })
            .using((success, message, error) -> {
                if (!success) {
                    System.err.println(message);
                    if (error != null) {
                        error.printStackTrace();
                    }
                    System.exit(1);
                }
            })
            .build();
        ExecutorService executor = Executors.newSingleThreadExecutor();
        executor.execute(engine);
        ended.await();
        engine.close();
        executor.shutdown();
        System.exit(0);
    }

    private static String text(
        Converter converter, String topic, org.apache.kafka.connect.data.Schema schema, Object value) {
        byte[] bytes = value == null ? null : converter.fromConnectData(topic, schema, value);
        return bytes == null ? "" : Base64.getEncoder().encodeToString(bytes);
    }
}
