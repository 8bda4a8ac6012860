import java.io.PrintStream;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.Date;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.Properties;
import java.util.concurrent.FutureTask;

/**
 * Asks the same questions by JDBC, over PostgreSQL's protocol and Arrow Flight SQL, and looks around as tools do.
 *
 * <p>Called with the ports of both and a file of questions: a statement in each line, and its parameters as
 * type=text, all with tabs between them. Prints a line for each driver and answer: the driver, the number of the
 * question, and the values of all rows.
 */
public class Ask {
    private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);

    public static void main(String[] arguments) throws Exception {
        List<String> questions = Files.readAllLines(Path.of(arguments[2]));
        Properties user = new Properties();
        user.setProperty("user", "ruam");
        String postgres = "jdbc:postgresql://127.0.0.1:" + arguments[0] + "/ruam";
        try (Connection lake = DriverManager.getConnection(postgres, user);
                Connection other = DriverManager.getConnection(postgres, user)) {
            lookAround(lake, "ruam");
            answers("pgjdbc", lake, questions);
            copies(lake);
            cancels(lake, other);
            fetches(lake);
        }
        user.setProperty("useEncryption", "false");
        user.remove("user");
        try (Connection lake = DriverManager.getConnection("jdbc:arrow-flight-sql://127.0.0.1:" + arguments[1], user)) {
            lookAround(lake, null);
            answers("Flight SQL", lake, questions);
        }
    }

    private static void check(boolean is, String what) {
        if (!is) {
            throw new AssertionError(what);
        }
    }

    /** What a tool shows before anybody has asked. */
    private static void lookAround(Connection lake, String catalog) throws SQLException {
        var about = lake.getMetaData();
        List<String> tables = texts(about.getTables(catalog, "bora", "%", new String[] {"TABLE"}), "TABLE_SCHEM", "TABLE_NAME");
        check(tables.contains("bora.person"), "tables: " + tables);
        List<String> views = texts(about.getTables(catalog, "dopa", "%", new String[] {"VIEW"}), "TABLE_SCHEM", "TABLE_NAME");
        check(views.contains("dopa.administrative_area__history"), "views: " + views);
        check(texts(about.getSchemas(), "TABLE_SCHEM").contains("bora"), "schemas");
        List<String> columns = texts(about.getColumns(catalog, "bora", "person", "%"), "COLUMN_NAME", "DATA_TYPE");
        boolean isText = columns.contains("citizen_id." + VARCHAR) || columns.contains("citizen_id." + LONGVARCHAR);
        check(isText, "columns: " + columns);
        check(columns.contains("birth_date." + java.sql.Types.DATE), "columns: " + columns);
        columns = texts(about.getColumns(catalog, "cgd", "disbursement", "amount"), "DATA_TYPE", "COLUMN_SIZE", "DECIMAL_DIGITS");
        check(columns.equals(List.of(NUMERIC + ".18.2")) || columns.equals(List.of(DECIMAL + ".18.2")), "an amount: " + columns);
        List<String> key = texts(about.getPrimaryKeys(catalog, "bora", "person"), "COLUMN_NAME", "KEY_SEQ");
        check(key.equals(List.of("citizen_id.1")), "key: " + key);
        check(texts(about.getImportedKeys(catalog, "bora", "person"), "PKTABLE_NAME").isEmpty(), "no table refers to another");
    }

    private static final int VARCHAR = java.sql.Types.VARCHAR;
    private static final int LONGVARCHAR = java.sql.Types.LONGVARCHAR;
    private static final int NUMERIC = java.sql.Types.NUMERIC;
    private static final int DECIMAL = java.sql.Types.DECIMAL;

    private static List<String> texts(ResultSet rows, String... columns) throws SQLException {
        List<String> texts = new ArrayList<>();
        try (rows) {
            while (rows.next()) {
                List<String> values = new ArrayList<>();
                for (String column : columns) {
                    values.add(rows.getString(column));
                }
                texts.add(String.join(".", values));
            }
        }
        return texts;
    }

    private static void answers(String driver, Connection lake, List<String> questions) throws SQLException {
        for (int number = 0; number < questions.size(); number++) {
            String[] parts = questions.get(number).split("\t");
            if (parts.length == 1) {
                try (Statement statement = lake.createStatement()) {
                    tell(driver, number, statement.executeQuery(parts[0]));
                }
                continue;
            }
            try (PreparedStatement statement = lake.prepareStatement(parts[0].replaceAll("\\$\\d+", "?"))) {
                for (int place = 1; place < parts.length; place++) {
                    String[] value = parts[place].split("=", 2);
                    switch (value[0]) {
                        case "integer" -> statement.setInt(place, Integer.parseInt(value[1]));
                        case "decimal" -> statement.setBigDecimal(place, new BigDecimal(value[1]));
                        case "date" -> statement.setDate(place, Date.valueOf(value[1]));
                        default -> statement.setString(place, value[1]);
                    }
                }
                tell(driver, number, statement.executeQuery());
            }
        }
    }

    private static void tell(String driver, int number, ResultSet rows) throws SQLException {
        List<String> values = new ArrayList<>(List.of(driver, String.valueOf(number)));
        try (rows) {
            int columns = rows.getMetaData().getColumnCount();
            while (rows.next()) {
                for (int column = 1; column <= columns; column++) {
                    values.add(Objects.toString(rows.getObject(column), "null"));
                }
            }
        }
        OUT.println(String.join("\t", values));
    }

    /** A copy, by the driver's own way. */
    private static void copies(Connection lake) throws Exception {
        var copy = lake.unwrap(org.postgresql.PGConnection.class).getCopyAPI();
        var written = new java.io.StringWriter();
        long rows = copy.copyOut("copy (select code, name_th from dopa.administrative_area) to stdout csv header", written);
        check(rows > 5000 && written.toString().startsWith("code,name_th\n"), rows + " rows were copied");
    }

    /** Rows that come as they are wanted, and no more; and what went wrong is undone up to a savepoint. */
    private static void fetches(Connection lake) throws SQLException {
        lake.setAutoCommit(false);
        try (Statement statement = lake.createStatement()) {
            statement.setFetchSize(100);
            long sum = 0;
            try (ResultSet rows = statement.executeQuery("select value from generate_series(1, 100000000000)")) {
                for (int row = 0; row < 1000 && rows.next(); row++) {
                    sum += rows.getLong(1);
                }
            }
            check(sum == 500500, "the sum of 1000 rows is " + sum);
        }
        var before = lake.setSavepoint("before");
        try (Statement statement = lake.createStatement()) {
            statement.executeQuery("select * from nowhere.nothing");
            throw new AssertionError("there is no such table");
        } catch (SQLException unknown) {
            check("42P01".equals(unknown.getSQLState()), unknown.getSQLState() + ": " + unknown.getMessage());
        }
        lake.rollback(before);
        check(texts(lake.createStatement().executeQuery("select 1 as one"), "one").equals(List.of("1")), "a savepoint");
        lake.rollback();
        lake.setAutoCommit(true);
    }

    private static final String LONG =
        "select sum(a.value * b.value) from generate_series(1, 10000000) a, generate_series(1, 10000000) b";

    /** What would take for ever ends when it is cancelled, and the connection goes on. */
    private static void cancels(Connection lake, Connection other) throws Exception {
        try (Statement statement = lake.createStatement()) {
            FutureTask<Void> impatient = new FutureTask<>(() -> {
                // The driver cancels once, which is lost on what has not begun.
                String begun = "select 1 from ruam.audit where event = 'begun' and sql like '%10000000) b'";
                while (texts(other.createStatement().executeQuery(begun)).isEmpty()) {
                    Thread.onSpinWait();
                }
                statement.cancel();
                return null;
            });
            new Thread(impatient).start();
            try {
                statement.executeQuery(LONG);
                throw new AssertionError("it is not cancelled");
            } catch (SQLException cancelled) {
                check("57014".equals(cancelled.getSQLState()), cancelled.getSQLState() + ": " + cancelled.getMessage());
            }
            impatient.get();
        }
        try (Statement statement = lake.createStatement(); ResultSet row = statement.executeQuery("select 1")) {
            check(row.next() && row.getInt(1) == 1, "the connection goes on");
        }
    }
}
